using System.Globalization;
using System.Text;
using LlamaKivi.Sampling.Grammars.Automata;

namespace LlamaKivi.Sampling.Grammars;

// Characters and character classes.
internal sealed partial class GbnfParser
{
    private CharacterSet CharacterClass()
    {
        _at++;
        bool negated = Take("^");
        var ranges = new List<(int Low, int High)>();
        while (_at < _source.Length && _source[_at] != ']')
        {
            int low = Character();
            int high = low;
            if (_at + 1 < _source.Length && _source[_at] == '-' && _source[_at + 1] != ']')
            {
                _at++;
                high = Character();
                if (high < low)
                {
                    throw Fail("a range ends before it begins");
                }
            }

            ranges.Add((low, high));
        }

        if (!Take("]"))
        {
            throw Fail("']' is expected");
        }

        CharacterSet set = CharacterSet.Of(ranges);
        return negated ? set.Complement() : set;
    }

    // A code point, plain or escaped.
    private int Character()
    {
        if (_source[_at] != '\\')
        {
            if (!Rune.TryGetRuneAt(_source, _at, out Rune rune))
            {
                throw Fail("half of a character stands alone");
            }

            _at += rune.Utf16SequenceLength;
            return rune.Value;
        }

        _at++;
        char c = _at < _source.Length ? _source[_at++] : throw Fail("a character is expected after '\\'");
        int digits = c switch { 'x' => 2, 'u' => 4, 'U' => 8, _ => 0 };
        if (digits == 0)
        {
            return c switch { 'n' => '\n', 't' => '\t', 'r' => '\r', '"' or '\\' or '[' or ']' or '-' or '^' or '/' => c, _ => throw Fail($"'\\{c}' is not known") };
        }

        if (_at + digits > _source.Length || !int.TryParse(_source.AsSpan(_at, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out int value) || !Rune.IsValid(value))
        {
            throw Fail($"{digits} hexadecimal digits of a character are expected");
        }

        _at += digits;
        return value;
    }
}
