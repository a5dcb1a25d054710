# The server on an NVIDIA GPU:
#   docker build -f containers/cuda.Dockerfile -t llama-kivi:cuda .
#   docker run --gpus all -p 8080:8080 -v "$PWD/models:/models" llama-kivi:cuda -m /models/FILE.gguf -ngl -1
FROM nvidia/cuda:12.8.1-devel-ubuntu24.04 AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ cmake make dotnet-sdk-10.0 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN dotnet publish src/LlamaKivi.Cli -c Release -p:LkCuda=ON -o /app

FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends aspnetcore-runtime-10.0 && rm -rf /var/lib/apt/lists/*
COPY --from=build /app /app
USER 1000
EXPOSE 8080
ENTRYPOINT ["/app/llama-kivi", "serve", "--host", "0.0.0.0", "--port", "8080"]
