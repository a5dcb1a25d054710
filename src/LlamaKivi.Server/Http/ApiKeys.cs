using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Http;

namespace LlamaKivi.Server;

/// <summary>Checks API keys in constant time.</summary>
internal sealed class ApiKeys(IEnumerable<string> keys)
{
    private const string Bearer = "Bearer ";

    private readonly byte[][] _hashes = [.. keys.Select(Hash)];

    /// <summary>Checks a request's key.</summary>
    /// <exception cref="ApiException">The key is missing or wrong.</exception>
    public void Check(HttpRequest request)
    {
        if (_hashes.Length == 0)
        {
            return;
        }

        string? given = Given(request);
        if (given is null)
        {
            throw new ApiException(StatusCodes.Status401Unauthorized, "The request has no API key. Send it as 'Authorization: Bearer KEY'.", code: "invalid_api_key");
        }

        // Hashes have one length, and all keys are compared, so that the time tells nothing about a key.
        byte[] hash = Hash(given);
        bool found = false;
        foreach (byte[] key in _hashes)
        {
            found |= CryptographicOperations.FixedTimeEquals(key, hash);
        }

        if (!found)
        {
            throw new ApiException(StatusCodes.Status401Unauthorized, "The API key is wrong.", code: "invalid_api_key");
        }
    }

    /// <summary>The key that a request has; null: none.</summary>
    public static string? Given(HttpRequest request)
    {
        string authorization = request.Headers.Authorization.ToString();
        if (authorization.StartsWith(Bearer, StringComparison.OrdinalIgnoreCase))
        {
            return authorization[Bearer.Length..].Trim();
        }

        string key = request.Headers["x-api-key"].ToString();
        return key.Length > 0 ? key : null;
    }

    private static byte[] Hash(string key) => SHA256.HashData(Encoding.UTF8.GetBytes(key));
}
