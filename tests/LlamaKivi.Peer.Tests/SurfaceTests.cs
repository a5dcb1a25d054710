using System.Reflection;
using System.Runtime.InteropServices;
using LlamaKivi.Exceptions;

namespace LlamaKivi.Peer.Tests;

/// <summary>The public surface contains LLamaSharp's, except for the differences listed with reasons in AcceptedDifferences.txt.</summary>
public sealed class SurfaceTests
{
    [Fact]
    public void EveryMemberOfLLamaSharpIsHereOrAccepted()
    {
        IReadOnlyList<string> missing = Missing();
        Dictionary<string, string> accepted = Accepted();

        string[] unexpected = [.. missing.Where(line => !accepted.ContainsKey(line))];

        Assert.True(unexpected.Length == 0, $"{unexpected.Length} members of LLamaSharp are missing or differ, and AcceptedDifferences.txt does not list them:\n{string.Join('\n', unexpected)}");
    }

    [Fact]
    public void EveryAcceptedDifferenceStillDiffers()
    {
        HashSet<string> missing = [.. Missing()];

        string[] stale = [.. Accepted().Keys.Where(line => !missing.Contains(line))];

        Assert.True(stale.Length == 0, $"{stale.Length} lines of AcceptedDifferences.txt no longer differ; remove them:\n{string.Join('\n', stale)}");
    }

    private static IReadOnlyList<string> Missing()
    {
        string peer = typeof(SurfaceTests).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(data => data.Key == "LLamaSharp").Value!;
        string[] assemblies = [.. Directory.GetFiles(RuntimeEnvironment.GetRuntimeDirectory(), "*.dll"), .. Directory.GetFiles(AppContext.BaseDirectory, "*.dll"), peer];
        // The runtime and the program may both bring an assembly; either describes the same types.
        using var context = new MetadataLoadContext(new PathAssemblyResolver(assemblies.DistinctBy(Path.GetFileName)));
        return Surface.Read(context, typeof(LLamaWeights).Assembly.Location, typeof(RuntimeError).Assembly.Location).MissingFrom(Surface.Read(context, peer));
    }

    /// <summary>Differences and their reasons: a line that starts with # is the reason of those that follow.</summary>
    private static Dictionary<string, string> Accepted()
    {
        using var reader = new StreamReader(typeof(SurfaceTests).Assembly.GetManifestResourceStream("AcceptedDifferences.txt")!);
        var accepted = new Dictionary<string, string>();
        string reason = "";
        while (reader.ReadLine() is { } line)
        {
            if (line.StartsWith('#'))
            {
                reason = line[1..].Trim();
            }
            else if (line.Length > 0)
            {
                Assert.True(reason.Length > 0, $"AcceptedDifferences.txt gives no reason for '{line}'.");
                Assert.True(accepted.TryAdd(line, reason), $"AcceptedDifferences.txt lists '{line}' twice.");
            }
            else
            {
                reason = "";
            }
        }

        return accepted;
    }
}
