using System.Buffers;
using System.Diagnostics;
using System.Globalization;
using LlamaKivi.Exceptions;
using LlamaKivi.Hosting;
using LlamaKivi.Native;
using Microsoft.AspNetCore.Http;

namespace LlamaKivi.Server;

/// <summary><c>GET /slots</c>, and <c>POST /slots/{id}?action=save|restore|erase</c>, as llama.cpp's server has them.</summary>
internal static class SlotEndpoints
{
    public static async Task ListAsync(ApiRequest request)
    {
        using ModelLease lease = await AcquireAsync(request).ConfigureAwait(false);
        IReadOnlyList<SlotStatus> slots = lease.Model.Engine.Slots;
        if (request.Http.Request.Query["fail_on_no_slot"] == "1" && slots.All(slot => slot.IsBusy))
        {
            throw new ApiException(StatusCodes.Status503ServiceUnavailable, "All slots run requests. Retry later.", code: "no_slot_available", retryAfter: TimeSpan.FromSeconds(1));
        }

        long capacity = lease.Model.Engine.Status.CacheCapacity;
        await JsonResult.WriteAsync(
            request.Http.Response,
            [.. slots.Select(slot => new SlotView(slot.Id, capacity, slot.IsBusy, slot.Tokens, slot.Prompt, slot.Reused, slot.Generated))],
            ServerJson.Text.SlotViewArray).ConfigureAwait(false);
    }

    public static async Task ActAsync(ApiRequest request)
    {
        if (request.Server.Options.SlotSavePath is not { } folder)
        {
            throw new ApiException(
                StatusCodes.Status501NotImplemented, "This server does not save slots. Start it with --slot-save-path FOLDER, or set SlotSavePath.", code: "not_supported");
        }

        HttpRequest http = request.Http.Request;
        string action = http.Query["action"].ToString();
        if (action is not ("save" or "restore" or "erase"))
        {
            throw ApiException.Bad("action", $"action is '{action}'; it must be save, restore or erase.", "invalid_value");
        }

        using ModelLease lease = await AcquireAsync(request).ConfigureAwait(false);
        InferenceEngine engine = lease.Model.Engine;
        int slot = Slot(http.RouteValues["id"]?.ToString(), engine.Options.SeqMax);
        long start = Stopwatch.GetTimestamp();
        try
        {
            SlotActionView view = action == "erase"
                ? new SlotActionView(slot) { NErased = await engine.EraseSlotAsync(slot, request.Cancellation).ConfigureAwait(false) }
                : await MoveAsync(request, engine, slot, folder, action == "save", start).ConfigureAwait(false);
            await JsonResult.WriteAsync(request.Http.Response, view, ServerJson.Text.SlotActionView).ConfigureAwait(false);
        }
        catch (SlotEmptyException e)
        {
            throw ApiException.Bad("id", OperatorWords.Of(e.Message), "slot_empty");
        }
    }

    private static async Task<SlotActionView> MoveAsync(ApiRequest request, InferenceEngine engine, int slot, string folder, bool isSave, long start)
    {
        JsonFields body = await request.ReadBodyAsync().ConfigureAwait(false);
        string name = body.RequiredText("filename");
        body.Accept("model");
        body.RefuseUnknown();
        string path = SlotFile.PathOf(folder, name);
        try
        {
            (int tokens, long bytes) = isSave
                ? await engine.SaveSlotAsync(slot, path, request.Cancellation).ConfigureAwait(false)
                : await engine.RestoreSlotAsync(slot, path, request.Cancellation).ConfigureAwait(false);
            double time = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
            return isSave
                ? new SlotActionView(slot) { Filename = name, NSaved = tokens, NWritten = bytes, Timings = new SlotTimings(time, null) }
                : new SlotActionView(slot) { Filename = name, NRestored = tokens, NRead = bytes, Timings = new SlotTimings(null, time) };
        }
        catch (Exception e) when (e is StateLoadException or ContextOverflowException)
        {
            throw ApiException.Bad("filename", OperatorWords.Of(e.Message), "slot_not_restored");
        }
        catch (Exception e) when (!isSave && e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new ApiException(StatusCodes.Status404NotFound, $"There is no file '{name}' in the folder of saved slots.", "filename", "file_not_found");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new ApiException(
                StatusCodes.Status500InternalServerError, $"The server cannot {(isSave ? "write" : "read")} '{name}' in the folder of saved slots; check the folder's rights and free space.", "filename", "file_error");
        }
    }

    private static ValueTask<ModelLease> AcquireAsync(ApiRequest request) => request.Server.Models.AcquireAsync(request.Http.Request.Query["model"].ToString(), request.Cancellation);

    private static int Slot(string? id, uint count) => int.TryParse(id, NumberStyles.None, CultureInfo.InvariantCulture, out int slot) && slot < count
        ? slot
        : throw ApiException.Bad("id", $"The slot is '{id}'; slots are 0 to {count - 1}.", "invalid_value");
}

/// <summary>Names of saved slots, which must not leave their folder.</summary>
internal static class SlotFile
{
    private const int MostBytes = 255;

    private static readonly SearchValues<char> PathCharacters = SearchValues.Create(@"/\:*?""<>|");

    /// <summary>The path of a file.</summary>
    /// <exception cref="ApiException">The name has characters of a path, or cannot be a file's name.</exception>
    public static string PathOf(string folder, string name)
    {
        bool isName = name.Length > 0 && System.Text.Encoding.UTF8.GetByteCount(name) <= MostBytes
            && name[0] is not ('.' or ' ') && name[^1] is not ('.' or ' ')
            && !name.AsSpan().ContainsAny(PathCharacters) && !name.Any(char.IsControl);
        return isName
            ? Path.Combine(folder, name)
            : throw ApiException.Bad("filename", $"filename is not the name of a file: give 1 to {MostBytes} bytes without / \\ : * ? \" < > |, control characters, or a dot or space at either end.", "invalid_value");
    }
}

/// <summary>A slot: its conversation's tokens, and those of its running request.</summary>
internal sealed record SlotView(int Id, long NCtx, bool IsProcessing, int NTokens, int NPromptTokens, int NPromptTokensCache, int NDecoded);

/// <summary>What an action on a slot did.</summary>
internal sealed record SlotActionView(int IdSlot)
{
    public string? Filename { get; init; }

    public int? NSaved { get; init; }

    public long? NWritten { get; init; }

    public int? NRestored { get; init; }

    public long? NRead { get; init; }

    public int? NErased { get; init; }

    public SlotTimings? Timings { get; init; }
}

internal sealed record SlotTimings(double? SaveMs, double? RestoreMs);
