using System.Text;
using System.Text.Json;
using System.Text.Unicode;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Server;

/// <summary><c>POST /tokenize</c>, <c>/detokenize</c> and <c>/apply-template</c>, as llama.cpp's server has them.</summary>
internal static class Tokens
{
    public static async Task TokenizeAsync(ApiRequest request)
    {
        JsonFields body = await request.ReadBodyAsync().ConfigureAwait(false);
        using ModelLease lease = await request.Server.Models.AcquireAsync(body.Text("model"), request.Cancellation).ConfigureAwait(false);
        Tokenizer tokenizer = lease.Model.Weights.Tokenizer;
        int[] ids = tokenizer.Encode(body.RequiredText("content"), (body.Flag("add_special") ?? false) && tokenizer.AddBos, body.Flag("parse_special") ?? true);
        bool withPieces = body.Flag("with_pieces") ?? false;
        body.RefuseUnknown();
        if (withPieces)
        {
            await JsonResult.WriteAsync(
                request.Http.Response, new PieceList([.. ids.Select(id => new TokenPiece(id, Write(tokenizer.GetBytes(id, special: true).Span)))]), ServerJson.Text.PieceList).ConfigureAwait(false);
            return;
        }

        await JsonResult.WriteAsync(request.Http.Response, new TokenList(ids), ServerJson.Text.TokenList).ConfigureAwait(false);
    }

    public static async Task DetokenizeAsync(ApiRequest request)
    {
        JsonFields body = await request.ReadBodyAsync().ConfigureAwait(false);
        using ModelLease lease = await request.Server.Models.AcquireAsync(body.Text("model"), request.Cancellation).ConfigureAwait(false);
        Tokenizer tokenizer = lease.Model.Weights.Tokenizer;
        int[] ids = TokenFields.Read(body.Required("tokens"), "tokens", tokenizer.VocabularySize);
        body.RefuseUnknown();
        await JsonResult.WriteAsync(request.Http.Response, new DetokenizedText(tokenizer.Decode(ids, special: true)), ServerJson.Text.DetokenizedText).ConfigureAwait(false);
    }

    public static async Task ApplyTemplateAsync(ApiRequest request)
    {
        JsonFields body = await request.ReadBodyAsync().ConfigureAwait(false);
        using ModelLease lease = await request.Server.Models.AcquireAsync(body.Text("model"), request.Cancellation).ConfigureAwait(false);
        ChatCompletionRequest read = ChatCompletionRequest.Read(body, request.Server.Options, lease.Model);
        await JsonResult.WriteAsync(
            request.Http.Response, new TemplatePrompt(read.Call.Prompt(lease.Model, request.Cancellation).Text.Value), ServerJson.Text.TemplatePrompt).ConfigureAwait(false);
    }

    // A string, or the bytes of a token that is no whole text.
    private static JsonElement Write(ReadOnlySpan<byte> piece) => Utf8.IsValid(piece)
        ? JsonSerializer.SerializeToElement(Encoding.UTF8.GetString(piece), ServerJson.Text.String)
        : JsonSerializer.SerializeToElement([.. piece.ToArray().Select(b => (int)b)], ServerJson.Text.Int32Array);
}

internal sealed record TokenList(int[] Tokens);

internal sealed record PieceList(TokenPiece[] Tokens);

internal sealed record TokenPiece(int Id, JsonElement Piece);

internal sealed record DetokenizedText(string Content);

internal sealed record TemplatePrompt(string Prompt);
