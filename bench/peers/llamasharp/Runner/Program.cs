using BenchmarkDotNet.Running;
using PeerBenchmark;

switch (args)
{
    case ["turns", ..]:
        Turns.Run(args.Length > 1 ? int.Parse(args[1], System.Globalization.CultureInfo.InvariantCulture) : 15, args.Length > 2 ? args[2] : "");
        break;
    case ["peak", var library, var step]:
        Console.WriteLine(Turns.Peak(library, step));
        break;
    default:
        BenchmarkSwitcher.FromAssembly(typeof(Libraries).Assembly).Run(args);
        break;
}
