using BenchmarkDotNet.Running;
using LlamaKivi.Benchmarks;

BenchmarkSwitcher.FromAssembly(typeof(TokenOverhead).Assembly).Run(args);
