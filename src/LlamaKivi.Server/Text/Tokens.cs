using System.Text.Json;
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
                request.Http.Response, new PieceList([.. ids.Select(id => new Piece(id, tokenizer.Decode([id], special: true)))]), ServerJson.Text.PieceList).ConfigureAwait(false);
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
}

internal sealed record TokenList(int[] Tokens);

internal sealed record PieceList(Piece[] Tokens);

internal sealed record Piece(int Id, [property: System.Text.Json.Serialization.JsonPropertyName("piece")] string Text);

internal sealed record DetokenizedText(string Content);

internal sealed record TemplatePrompt(string Prompt);
