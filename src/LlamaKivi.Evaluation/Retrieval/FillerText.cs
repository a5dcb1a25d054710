using System.Text;

namespace LlamaKivi.Evaluation;

/// <summary>Endless technical prose without numbers, as filler around a hidden fact.</summary>
internal sealed class FillerText(Random random)
{
    private static readonly string[] Things =
    [
        "the scheduler", "a background thread", "the compiler", "the garbage collector", "a request handler", "the file system", "the parser", "an iterator",
        "the type checker", "a worker process", "the network stack", "the connection pool", "a lock", "the allocator", "the build system", "a test runner",
        "the linker", "the runtime", "a message queue", "the logging library", "an event loop", "the cache", "the package manager", "a stream reader",
        "the database driver", "a transaction", "the configuration loader", "the debugger", "a memory map", "the serializer",
    ];

    private static readonly string[] Actions =
    [
        "waits for", "hands its result to", "keeps a reference to", "is notified by", "copies its state into", "never blocks", "is created before", "shares a buffer with",
        "reports errors to", "depends on", "can be replaced by", "is measured against", "releases its memory after", "reads its settings from", "runs ahead of",
        "falls back to", "is documented together with", "retries after", "is tested apart from", "sends a signal to",
    ];

    private static readonly string[] Circumstances =
    [
        "when the program starts", "on most platforms", "unless an option says otherwise", "so that no work is lost", "before the first request arrives",
        "even if the disk is full", "as the documentation explains", "in the default configuration", "while other tasks go on", "after a short delay",
        "which keeps latency low", "without taking a lock", "once the queue is empty", "if the version matches", "to make failures visible",
        "although this is rarely noticed", "because the order matters", "until the process ends",
    ];

    private static readonly string[] Openings = ["", "", "", "In practice, ", "By contrast, ", "As a rule, ", "Internally, ", "For this reason, ", "At the same time, "];

    /// <summary>Generates a paragraph of a few sentences.</summary>
    public string Paragraph()
    {
        var text = new StringBuilder();
        for (int i = random.Next(3, 7); i > 0; i--)
        {
            string sentence = $"{Pick(Openings)}{Pick(Things)} {Pick(Actions)} {Pick(Things)} {Pick(Circumstances)}. ";
            text.Append(char.ToUpperInvariant(sentence[0])).Append(sentence, 1, sentence.Length - 1);
        }

        return text.ToString().TrimEnd() + "\n\n";
    }

    private string Pick(string[] from) => from[random.Next(from.Length)];
}
