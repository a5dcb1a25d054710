using LlamaKivi.Native;

namespace LlamaKivi.Evaluation;

/// <summary>Magnitudes of keys and values of a layer's first KV head in the first window, for a heat map.</summary>
/// <param name="Keys">|K| after RoPE, [tokens, channels].</param>
/// <param name="Values">|V|, [tokens, channels].</param>
/// <param name="Step">Number of tokens between rows.</param>
public sealed record MagnitudeMap(double[,] Keys, double[,] Values, int Step)
{
    private const int MaxTokens = 256;

    internal static MagnitudeMap Sample(Observation seen, ModelDescription model)
    {
        int step = (seen.RowCount + MaxTokens - 1) / MaxTokens;
        int rows = seen.RowCount / step;
        var keys = new double[rows, model.HeadSize];
        var values = new double[rows, model.HeadSize];
        for (int i = 0; i < rows; i++)
        {
            for (int c = 0; c < model.HeadSize; c++)
            {
                int at = (i * step * model.KvHeadCount * model.HeadSize) + c;
                keys[i, c] = Math.Abs(seen.Keys[at]);
                values[i, c] = Math.Abs(seen.Values[at]);
            }
        }

        return new MagnitudeMap(keys, values, step);
    }
}
