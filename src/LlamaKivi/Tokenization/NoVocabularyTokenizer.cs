namespace LlamaKivi.Tokenization;

/// <summary>Tokenizer of a file without a vocabulary (tokenizer.ggml.model = no_vocab): knows the special ids and rejects text.</summary>
internal sealed class NoVocabularyTokenizer(Vocabulary vocabulary) : Tokenizer(vocabulary, (_, _) => [], addBosByDefault: false)
{
    private protected override void EncodeFragment(string text, bool isStart, List<int> ids) =>
        throw new InvalidOperationException("The vocabulary has no token texts.");

    private protected override void EncodeByte(byte value, List<int> ids) =>
        throw new InvalidOperationException("The vocabulary has no token texts.");
}
