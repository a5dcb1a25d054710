namespace LlamaKivi.Tokenization;

/// <summary>Of a file without a vocabulary (tokenizer.ggml.model = no_vocab): it knows the special ids; text it refuses.</summary>
internal sealed class NoVocabularyTokenizer(Vocabulary vocabulary) : Tokenizer(vocabulary, (_, _) => [], addBosByDefault: false)
{
    private protected override void EncodeFragment(string text, bool isStart, List<int> ids) =>
        throw new InvalidOperationException("There are no texts of tokens.");

    private protected override void EncodeByte(byte value, List<int> ids) =>
        throw new InvalidOperationException("There are no texts of tokens.");
}
