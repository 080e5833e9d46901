# Two images: `robot` runs bundles (no torch, no simulator; x86-64 and arm64), `train` learns them (CUDA comes with torch).
#   docker build --target robot -t gcl-robot .
#   docker build --target train -t gcl-train .
FROM python:3.11-slim AS wheel
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir -c constraints.txt build \
 && python -m build --wheel --outdir /dist .

FROM python:3.11-slim AS robot
COPY constraints.txt /opt/gcl/constraints.txt
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-cache-dir -c /opt/gcl/constraints.txt "$(ls /dist/*.whl)[serial,sign]"
RUN useradd --create-home robot
USER robot
WORKDIR /home/robot
# Real-time scheduling needs leave from outside:
#   docker run --network host --cap-add SYS_NICE --ulimit rtprio=99 --ulimit memlock=-1 gcl-robot deploy ...
ENTRYPOINT ["gcl"]
CMD ["--help"]

FROM python:3.11-slim AS train
# libegl1: draws videos off screen, on the GPU where there is one
RUN apt-get update \
 && apt-get install -y --no-install-recommends libegl1 libgl1 \
 && rm -rf /var/lib/apt/lists/*
COPY constraints.txt /opt/gcl/constraints.txt
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-cache-dir -c /opt/gcl/constraints.txt "$(ls /dist/*.whl)[train]"
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
WORKDIR /work
# docker run --gpus all -v "$PWD:/work" gcl-train train --demos my_demos.zarr --device cuda
ENTRYPOINT ["gcl"]
CMD ["--help"]
