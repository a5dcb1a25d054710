using System.Numerics.Tensors;

namespace LlamaKivi.Evaluation;

/// <summary>Distribution of the next token: softmax of a row of logits, [vocabulary].</summary>
internal sealed class TokenDistribution(int vocabulary)
{
    /// <summary>Natural logarithms of the probabilities; before <see cref="Normalize"/>, the logits.</summary>
    public float[] LogProbabilities { get; } = new float[vocabulary];

    public float[] Probabilities { get; } = new float[vocabulary];

    /// <summary>The most probable token.</summary>
    public int Top { get; private set; }

    /// <summary>Turns logits into log probabilities, and sets the other properties.</summary>
    public void Normalize()
    {
        Top = TensorPrimitives.IndexOfMax<float>(LogProbabilities);
        TensorPrimitives.Subtract(LogProbabilities, LogProbabilities[Top], LogProbabilities);
        TensorPrimitives.Exp<float>(LogProbabilities, Probabilities);
        float sum = TensorPrimitives.Sum<float>(Probabilities);
        TensorPrimitives.Subtract(LogProbabilities, MathF.Log(sum), LogProbabilities);
        TensorPrimitives.Divide(Probabilities, sum, Probabilities);
    }
}
