# G2L in a container: `docker build -t g2l .` for processors, `docker build -t g2l --build-arg TORCH_INDEX= .` for NVIDIA GPUs
# (the wheels of the package index carry their own CUDA; the host needs the driver and the NVIDIA container toolkit).
# Try it: `mkdir -p out && docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/out:/out" g2l demo --out /out/demo`
# (a folder that docker makes is root's). On slides:
# `docker run --rm --gpus all --user "$(id -u):$(id -g)" -v /slides:/slides:ro -v "$PWD:/work" g2l plan /work/slides.csv --slides-root /slides --out /work/plan.h5`
FROM python:3.12-slim-bookworm

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

RUN useradd --create-home --uid 1000 g2l
WORKDIR /opt/g2l
COPY pyproject.toml LICENSE NOTICE CITATION.cff CONTRIBUTING.md SECURITY.md ./
COPY g2l g2l
COPY pipeline pipeline
COPY stages stages
# torch first: the index of its choice has no other packages. Versions are those that pyproject.toml allows.
# hadolint ignore=DL3013
RUN if [ -n "$TORCH_INDEX" ]; then \
      python -m pip install --no-cache-dir "torch>=2.12" "torchvision>=0.27" --index-url "$TORCH_INDEX"; \
    fi \
 && python -m pip install --no-cache-dir ".[demo,tensorboard,wandb,mlflow,onnx,objects,opencv]" \
 && g2l --version

USER 1000
WORKDIR /work
ENTRYPOINT ["g2l"]
CMD ["--help"]
