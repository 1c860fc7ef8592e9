# maquette in a container; docs/container.md says how to start it.
#   docker build -t maquette .                               a processor alone
#   docker build -t maquette --build-arg DEVICE=cu130 .      NVIDIA cards
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
# PyTorch's index: cpu, or a CUDA release such as cu130. Its wheels bring CUDA's libraries; the host has the driver.
ARG DEVICE=cpu
# What docs/install.md lists under "Extras".
ARG EXTRAS=studio,optimizers
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/maquette
WORKDIR /source
# The dependencies first: they are a layer that stays when only the source changes.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src/maquette/__init__.py src/maquette/__init__.py
RUN /opt/maquette/bin/pip install -c constraints.txt --extra-index-url https://download.pytorch.org/whl/${DEVICE} ".[${EXTRAS}]"
COPY src src
RUN /opt/maquette/bin/pip install --no-deps --force-reinstall .

FROM python:${PYTHON}-slim
RUN useradd --create-home --uid 1000 maquette && install -d -o maquette -g maquette /data
COPY --from=build /opt/maquette /opt/maquette
# MAQUETTE_PASSWORD is the studio's password, given at the start (docker run -e MAQUETTE_PASSWORD), never here.
ENV PATH=/opt/maquette/bin:$PATH PYTHONUNBUFFERED=1 MAQUETTE_CACHE=/data/cache MAQUETTE_MODELS=/data/models HF_HOME=/data/huggingface
USER maquette
WORKDIR /data
VOLUME ["/data"]
EXPOSE 7860
STOPSIGNAL SIGTERM
ENTRYPOINT ["maquette"]
CMD ["studio", "--lan", "--no-browser", "--data", "/data"]
