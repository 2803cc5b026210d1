"""Write the logs in docs/logs/: what commands printed, on slides that are drawn here and a hub on loopback.

    PYTHONPATH=.:tests python docs/logs/make.py

No figure in them says anything of pathology: slides are noise, encoders are tiny and random.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import huggingface_hub.constants
import safetensors.torch
import timm
from support.commands import call_g2l
from support.hub import TOKEN, StandIn, stand_in_hub
from support.places import ROOT
from support.slides import make_slide

from stages.publishing import upload

LOGS = Path(__file__).parent
PREPARE = (
    "g2l make-manifest slides --out slides.csv",
    "g2l plan slides.csv --slides-root slides --out plan.h5 --patches-per-slide 24 --patch-px 64 --val-fraction 0.4",
    "g2l extract-teacher plan.h5 --out store.zarr --teacher test_resnet --weights teacher.safetensors",
)
TRAIN = "g2l train-student store.zarr --out run --student test_vit --weights scratch --epochs 2 --batch-size 16"


def write(name: str, commands: tuple[str, ...], place: Path, *, note: Callable[[], str] = str) -> None:
    """Call commands one after another, and write what they printed; `note` is asked at the end for a last line."""
    lines = []
    for command in commands:
        code, out, errors = call_g2l(*shlex.split(command)[1:])
        lines += [f"$ {command}", (errors + out).strip(), f"[exit code {code}]", ""]
    text = "\n".join([*lines, note()]).replace(f"{place}/", "").replace(str(place), ".")
    text = re.sub(r"http://127\.0\.0\.1:\d+", "http://127.0.0.1", text)
    (LOGS / f"{name}.txt").write_text(text.strip() + "\n")
    print(name)


def asked(hub: StandIn) -> str:
    """What the stand-in was asked, and holds."""
    if not hub.asked:
        return "The hub was asked nothing."
    requests = "\n".join(f"  {method} {path}" for method, path, _ in hub.asked if "/repos/" in path or "/lab/" in path)
    seen = {repo: "private" if private else "public" for repo, private in hub.private.items()}
    held = "\n".join(f"  {repo} ({seen[repo]}): {len(files)} files" for repo, files in hub.files.items())
    return f"The stand-in was asked of repositories:\n{requests}\nand holds:\n{held}"


def site(place: Path) -> None:
    """Build the documentation strictly."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place / "site")]
    variables = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=variables)
    pages = len(list((place / "site").rglob("*.html")))
    said = (done.stdout + done.stderr).replace(str(place), ".")
    said = re.sub(r"in [\d.]+ seconds", "in some seconds", said)
    text = (
        f"$ mkdocs build --strict --site-dir ./site\n{said.strip()}\n[exit code {done.returncode}]\n\n{pages} pages\n"
    )
    (LOGS / "site.txt").write_text(text)


def main() -> None:
    """Write all logs."""
    place = Path(tempfile.mkdtemp())
    (place / "slides").mkdir()
    for seed in range(1, 6):
        make_slide(place / "slides" / f"slide_{seed}.svs", width=1500, height=1200, mpp=0.5, seed=seed)
    os.chdir(place)
    weights = timm.create_model("test_resnet", num_classes=0).state_dict()
    safetensors.torch.save_file(weights, place / "teacher.safetensors")
    os.environ |= {"WANDB_SILENT": "true", "HF_TOKEN": TOKEN}
    with stand_in_hub() as hub, mock.patch.object(huggingface_hub.constants, "ENDPOINT", hub.url):
        write("trackers", (*PREPARE, f"{TRAIN} --log wandb --log mlflow"), place, note=lambda: listed(place))
        check = "g2l models test_resnet --weights teacher.safetensors"
        write("models-check", (f"{check} --record --values v.json", f"{check} --check --values v.json"), place)
        other = timm.create_model("test_resnet", num_classes=0).state_dict()
        safetensors.torch.save_file(other, place / "other.safetensors")
        changed = "g2l models test_resnet --weights other.safetensors --check --values v.json"
        write("models-check-different", (changed,), place)
        send = "g2l publish student --repo lab/student --i-may-share"
        store = "g2l publish store.zarr --repo lab/store --slides-terms CC-BY-4.0 --i-may-share"
        write("publish-dry", ("g2l export run --out student --hub-card", send, store), place, note=lambda: asked(hub))
        with (
            mock.patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", False),
            mock.patch.object(upload, "HF_HUB_OFFLINE", False),
        ):
            write("publish-loopback", (f"{send} --yes", f"{store} --yes"), place, note=lambda: asked(hub))
    site(place)


def listed(place: Path) -> str:
    """What the services' logs left in the run."""
    run = place / "run"
    names = sorted({path.relative_to(run).parts[0] for path in run.rglob("*") if path.is_file()})
    offline = sorted(path.name for path in (run / "wandb").glob("offline-run-*"))
    return (
        f"run/ holds: {', '.join(names)}\nrun/wandb holds: {len(offline)} offline run; run/mlflow holds: "
        + ", ".join(sorted(path.name for path in (run / "mlflow").iterdir()))
    )


if __name__ == "__main__":
    main()
