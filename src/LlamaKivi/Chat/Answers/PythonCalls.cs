using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace LlamaKivi;

/// <summary>Reads calls as Python writes them: <c>[get_weather(city="Paris", days=3)]</c>. Values are literals, with Python's names of constants or JSON's.</summary>
internal ref struct PythonCalls
{
    private const int MaxDepth = 64;

    private readonly ReadOnlySpan<char> _text;
    private int _at;
    private int _depth;

    private PythonCalls(ReadOnlySpan<char> text) => _text = text;

    /// <summary>A call.</summary>
    public readonly record struct Call(string Name, Dictionary<string, object?> Arguments);

    /// <summary>The calls of a text; null: it is not made of calls.</summary>
    public static List<Call>? TryParse(string text)
    {
        var reader = new PythonCalls(text);
        List<Call> calls = [];
        bool isList = reader.Take('[');
        do
        {
            if (isList && calls.Count > 0 && reader.Stands(']'))
            {
                break;
            }

            if (reader.ReadCall() is not { } call)
            {
                return null;
            }

            calls.Add(call);
        }
        while (reader.Take(','));

        return (!isList || reader.Take(']')) && reader.IsAtEnd ? calls : null;
    }

    private bool IsAtEnd
    {
        get
        {
            SkipSpace();
            return _at == _text.Length;
        }
    }

    private Call? ReadCall()
    {
        SkipSpace();
        string name = Word("_-.");
        if (name.Length == 0 || !Take('('))
        {
            return null;
        }

        var arguments = new Dictionary<string, object?>(StringComparer.Ordinal);
        while (!Take(')'))
        {
            SkipSpace();
            string key = Word("_");
            if (key.Length == 0 || !Take('=') || !TryValue(out JsonNode? value))
            {
                return null;
            }

            arguments[key] = value is null ? null : ChatJson.TryParse(value.ToJsonString());
            if (!Take(',') && !Stands(')'))
            {
                return null;
            }
        }

        return new Call(name, arguments);
    }

    private bool TryValue(out JsonNode? value)
    {
        value = null;
        SkipSpace();
        if (_at == _text.Length || ++_depth > MaxDepth)
        {
            return false;
        }

        bool isRead = _text[_at] switch
        {
            '"' or '\'' => TryString(out value),
            '[' => TryList('[', ']', out value),
            '(' => TryList('(', ')', out value),
            '{' => TryDictionary(out value),
            _ => TryConstant(out value),
        };
        _depth--;
        return isRead;
    }

    private bool TryList(char open, char close, out JsonNode? value)
    {
        var list = new JsonArray();
        value = list;
        Take(open);
        while (!Take(close))
        {
            if (!TryValue(out JsonNode? item))
            {
                return false;
            }

            list.Add(item);
            if (!Take(',') && !Stands(close))
            {
                return false;
            }
        }

        return true;
    }

    private bool TryDictionary(out JsonNode? value)
    {
        var dictionary = new JsonObject();
        value = dictionary;
        Take('{');
        while (!Take('}'))
        {
            if (!TryValue(out JsonNode? key) || key is null || key.GetValueKind() != JsonValueKind.String || !Take(':') || !TryValue(out JsonNode? item))
            {
                return false;
            }

            dictionary[key.GetValue<string>()] = item;
            if (!Take(',') && !Stands('}'))
            {
                return false;
            }
        }

        return true;
    }

    private bool TryConstant(out JsonNode? value)
    {
        string word = Word("+-._");
        switch (word)
        {
            case "True" or "true":
                value = JsonValue.Create(true);
                return true;
            case "False" or "false":
                value = JsonValue.Create(false);
                return true;
            case "None" or "null":
                value = null;
                return true;
        }

        value = ChatJson.TryParse(word) is { ValueKind: JsonValueKind.Number } number ? JsonValue.Create(number)
            : word.Length > 0 && !char.IsAsciiLetter(word[0]) && double.TryParse(word.Replace("_", "", StringComparison.Ordinal), NumberStyles.Float, CultureInfo.InvariantCulture, out double real) && double.IsFinite(real) ? JsonValue.Create(real)
            : null;
        return value is not null;
    }

    private bool TryString(out JsonNode? value)
    {
        value = null;
        char quote = _text[_at++];
        var text = new StringBuilder();
        while (_at < _text.Length && _text[_at] != quote)
        {
            char c = _text[_at++];
            if (c == '\\' && (_at == _text.Length || !TryEscape(text)))
            {
                return false;
            }

            _ = c == '\\' ? text : text.Append(c);
        }

        if (_at++ >= _text.Length || !IsWhole(text.ToString()))
        {
            return false;
        }

        value = JsonValue.Create(text.ToString());
        return true;
    }

    private bool TryEscape(StringBuilder text)
    {
        char c = _text[_at++];
        int digits = c switch { 'x' => 2, 'u' => 4, 'U' => 8, _ => 0 };
        if (digits > 0)
        {
            if (_at + digits > _text.Length || !uint.TryParse(_text.Slice(_at, digits), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out uint code) || code > 0x10FFFF)
            {
                return false;
            }

            _at += digits;
            text.Append(code <= char.MaxValue ? ((char)code).ToString() : char.ConvertFromUtf32((int)code));
            return true;
        }

        _ = c switch
        {
            'n' => text.Append('\n'),
            't' => text.Append('\t'),
            'r' => text.Append('\r'),
            'b' => text.Append('\b'),
            'f' => text.Append('\f'),
            '0' => text.Append('\0'),
            '\n' => text,  // a line that goes on
            '\\' or '\'' or '"' or '/' => text.Append(c),
            _ => text.Append('\\').Append(c),
        };
        return true;
    }

    // JSON has no half characters.
    private static bool IsWhole(string text)
    {
        for (int i = 0; i < text.Length; i++)
        {
            if (char.IsSurrogate(text[i]) && !(char.IsHighSurrogate(text[i]) && ++i < text.Length && char.IsLowSurrogate(text[i])))
            {
                return false;
            }
        }

        return true;
    }

    private string Word(string others)
    {
        int start = _at;
        while (_at < _text.Length && (char.IsLetterOrDigit(_text[_at]) || others.Contains(_text[_at])))
        {
            _at++;
        }

        return _text[start.._at].ToString();
    }

    private bool Take(char c)
    {
        bool stands = Stands(c);
        _at += stands ? 1 : 0;
        return stands;
    }

    private bool Stands(char c)
    {
        SkipSpace();
        return _at < _text.Length && _text[_at] == c;
    }

    private void SkipSpace()
    {
        while (_at < _text.Length && char.IsWhiteSpace(_text[_at]))
        {
            _at++;
        }
    }
}
