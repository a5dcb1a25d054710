using BenchmarkDotNet.Running;
using LlamaKivi.Benchmarks;

if (args is ["scheduler", .. string[] rest])
{
    await SchedulerStep.RunAsync(rest);
}
else
{
    BenchmarkSwitcher.FromAssembly(typeof(TokenOverhead).Assembly).Run(args);
}
