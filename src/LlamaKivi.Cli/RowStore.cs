using System.Text;
using System.Text.Json;
using LlamaKivi.Evaluation;

namespace LlamaKivi.Cli;

/// <summary>Results of one cache type, appended to a file. The first line contains the run's settings.</summary>
internal sealed class RowStore : IDisposable
{
    private readonly StreamWriter? _file;

    private RowStore(StreamWriter? file) => _file = file;

    /// <summary>Results by line of the task.</summary>
    public Dictionary<int, TaskResult> Rows { get; } = [];

    public static RowStore Open(string? folder, string name, string settings)
    {
        if (folder is null)
        {
            return new RowStore(null);
        }

        Directory.CreateDirectory(folder);
        string path = Path.Combine(folder, name + ".jsonl");
        string[] lines = File.Exists(path) ? File.ReadAllLines(path) : [];
        var found = new List<TaskResult>();
        if (lines.Length > 0)
        {
            using JsonDocument head = JsonDocument.Parse(lines[0]);
            if (!head.RootElement.TryGetProperty("settings", out JsonElement before) || before.GetString() != settings)
            {
                throw new UsageException($"{path} belongs to a run with other settings ({(before.ValueKind == JsonValueKind.String ? before.GetString() : "none")}); use another folder with -o, or remove the file");
            }

            found.AddRange(lines.Skip(1).Select(Parse).OfType<TaskResult>());
        }

        // Drops a partial last line of an interrupted run. The file is replaced atomically.
        WholeFile.Write(path, stream =>
        {
            using var writer = new StreamWriter(stream, leaveOpen: true);
            foreach (string line in (string[])[Write(w => w.WriteString("settings", settings)), .. found.Select(Write)])
            {
                writer.WriteLine(line);
            }
        });
        var store = new RowStore(new StreamWriter(path, append: true) { AutoFlush = true });
        found.ForEach(row => store.Rows[row.Line] = row);
        return store;
    }

    /// <summary>Appends a row's result; false if the row already has one.</summary>
    public bool Add(TaskResult row)
    {
        if (!Rows.TryAdd(row.Line, row))
        {
            return false;
        }

        _file?.WriteLine(Write(row));
        return true;
    }

    public void Dispose() => _file?.Dispose();

    private static TaskResult? Parse(string line)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(line);
            JsonElement row = document.RootElement;
            return new TaskResult(row.GetProperty("line").GetInt32(), row.GetProperty("output").GetString()!, [.. row.GetProperty("loglikelihoods").EnumerateArray().Select(l => l.GetDouble())],
                new SortedDictionary<string, double>(row.GetProperty("scores").EnumerateObject().ToDictionary(s => s.Name, s => s.Value.GetDouble(), StringComparer.Ordinal), StringComparer.Ordinal));
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException)
        {
            return null;
        }
    }

    private static string Write(TaskResult row) => Write(w =>
    {
        w.WriteNumber("line", row.Line);
        w.WriteString("output", row.Output);
        w.WriteStartArray("loglikelihoods");
        foreach (double l in row.LogLikelihoods)
        {
            w.WriteNumberValue(l);
        }

        w.WriteEndArray();
        w.WriteStartObject("scores");
        foreach ((string metric, double score) in row.Scores)
        {
            w.WriteNumber(metric, score);
        }

        w.WriteEndObject();
    });

    private static string Write(Action<Utf8JsonWriter> write)
    {
        using var buffer = new MemoryStream();
        using (var writer = new Utf8JsonWriter(buffer))
        {
            writer.WriteStartObject();
            write(writer);
            writer.WriteEndObject();
        }

        return Encoding.UTF8.GetString(buffer.ToArray());
    }
}
