# G2L in a container: `docker build -t g2l .` for processors, `docker build -t g2l --build-arg TORCH_INDEX=pypi .` for NVIDIA GPUs
# (the wheels of the package index carry their own CUDA; the host needs the driver and the NVIDIA container toolkit).
# Try it: `mkdir -p out && docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/out:/out" g2l demo --out /out/demo`
# (a folder that docker makes is root's). On slides:
# `docker run --rm --gpus all --user "$(id -u):$(id -g)" -v /slides:/slides:ro -v "$PWD:/work" g2l plan /work/slides.csv --slides-root /slides --out /work/plan.h5`
FROM python:3.12-slim-bookworm

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Any user may be asked for, also one that the image does not know: home and working folder are everybody's.
RUN useradd --create-home --uid 1000 g2l && mkdir /work && chmod 1777 /home/g2l /work
WORKDIR /opt/g2l
COPY pyproject.toml LICENSE NOTICE CITATION.cff CONTRIBUTING.md SECURITY.md ./
COPY g2l g2l
COPY pipeline pipeline
COPY stages stages
# torch first: the index of its choice has no other packages. Versions are those that pyproject.toml allows.
# TORCH_INDEX: an address, or "pypi" (or nothing) for pip's own index.
# hadolint ignore=DL3013
RUN case "$TORCH_INDEX" in \
      ""|pypi) ;; \
      *) python -m pip install --no-cache-dir "torch>=2.12" "torchvision>=0.27" --index-url "$TORCH_INDEX" ;; \
    esac \
 && python -m pip install --no-cache-dir ".[demo,tensorboard,wandb,mlflow,onnx,objects,opencv]" \
 && g2l --version

# Without this, the home of an unknown user is /, where nothing can be kept.
ENV HOME=/home/g2l
USER 1000
WORKDIR /work
ENTRYPOINT ["g2l"]
CMD ["--help"]
