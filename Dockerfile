# The studio on a CPU: `docker build -t hypernst .`, `docker run --rm -p 127.0.0.1:7717:7717 hypernst`, then open the link
# that it prints. `-v hypernst:/data` keeps caches; other commands: `docker run --rm -v "$PWD:/data" hypernst stylize --help`.
FROM python:3.11-slim

# PyTorch's CPU index has a build that is 4 GB smaller: `--build-arg TORCH_INDEX=` its address.
ARG TORCH_INDEX=
COPY . /src
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -c /src/constraints.txt torch torchvision \
    && pip install --no-cache-dir -c /src/constraints.txt '/src[studio]' && rm -rf /src \
    && useradd --create-home artist && mkdir /data && chown artist /data

USER artist
WORKDIR /data
# Published weights, 210 MB: then it works without a network.
RUN hypernst weights fetch
EXPOSE 7717
ENTRYPOINT ["hypernst"]
# Inside a container every address is its own: what is published by -p decides who reaches it.
CMD ["studio", "--host", "0.0.0.0", "--i-know", "--port", "7717", "--no-open"]
