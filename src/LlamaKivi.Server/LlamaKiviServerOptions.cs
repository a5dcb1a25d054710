using LlamaKivi.Hosting;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>Options of the endpoints: keys, limits and times.</summary>
public sealed class LlamaKiviServerOptions
{
    /// <summary>Accepted API keys; empty: none is needed. Clients send one as <c>Authorization: Bearer KEY</c> or <c>x-api-key: KEY</c>.</summary>
    public IList<string> ApiKeys { get; } = [];

    /// <summary>Further names under which clients may ask for the model, if there is one model.</summary>
    public IList<string> Aliases { get; } = [];

    /// <summary>Maximum length of a request body in bytes.</summary>
    public long MaxBodyBytes { get; set; } = 8L << 20;

    /// <summary>Maximum number of generated tokens of a choice; larger requests end there with the reason "length". Null: the cache's capacity.</summary>
    public int? MaxOutputTokens { get; set; }

    /// <summary>Maximum number of choices (<c>n</c>) of a request.</summary>
    public int MaxChoices { get; set; } = 16;

    /// <summary>Maximum number of requests in progress, queued ones included; further ones are refused with 429.</summary>
    public int MaxConcurrentRequests { get; set; } = 1024;

    /// <summary>Maximum time of a request, its wait included.</summary>
    public TimeSpan RequestTimeout { get; set; } = TimeSpan.FromMinutes(30);

    /// <summary>Time that running requests have to finish when the host stops; then they end with an error.</summary>
    public TimeSpan DrainTimeout { get; set; } = TimeSpan.FromSeconds(20);

    /// <summary>Folder of the slots that clients save and restore, which must exist; null: they cannot.</summary>
    public string? SlotSavePath { get; set; }

    /// <summary>Creates the chat client of an engine, such as one with logging around it; null: the engine's own.</summary>
    public Func<InferenceEngine, IChatClient>? CreateChatClient { get; set; }

    /// <summary>Checks the options.</summary>
    /// <exception cref="ArgumentException">An option is out of range; the message names it.</exception>
    internal void Validate()
    {
        Check(MaxBodyBytes > 0, nameof(MaxBodyBytes), MaxBodyBytes, "above 0");
        Check(MaxOutputTokens is null or > 0, nameof(MaxOutputTokens), MaxOutputTokens, "above 0, or null");
        Check(MaxChoices > 0, nameof(MaxChoices), MaxChoices, "above 0");
        Check(MaxConcurrentRequests > 0, nameof(MaxConcurrentRequests), MaxConcurrentRequests, "above 0");
        Check(RequestTimeout > TimeSpan.Zero, nameof(RequestTimeout), RequestTimeout, "above zero");
        Check(DrainTimeout >= TimeSpan.Zero, nameof(DrainTimeout), DrainTimeout, "zero or more");
        Check(SlotSavePath is null || Directory.Exists(SlotSavePath), nameof(SlotSavePath), $"'{SlotSavePath}'", "a folder that exists");
        Check(!ApiKeys.Any(string.IsNullOrWhiteSpace), nameof(ApiKeys), "a list with an empty key", "a list of keys");
        Check(!ApiKeys.Any(key => key != key.Trim() || key.Any(char.IsControl)), nameof(ApiKeys), "a list with a key that begins or ends with a space or has a line break or another control character", "a list of keys that a header can carry");
    }

    private static void Check(bool valid, string option, object? value, string range)
    {
        if (!valid)
        {
            throw new ArgumentException(string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{option} is {value}; it must be {range}."), option);
        }
    }
}
