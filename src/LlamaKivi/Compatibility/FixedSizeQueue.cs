using System.Collections;

namespace LlamaKivi.Common;

/// <summary>A queue that drops its oldest item for a new one when it is full.</summary>
public class FixedSizeQueue<T> : IReadOnlyList<T>
{
    private readonly T[] _items;  // a ring
    private int _start;

    /// <summary>Makes an empty queue.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The size is 0 or less.</exception>
    public FixedSizeQueue(int size)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(size);
        _items = new T[size];
    }

    /// <summary>Makes a queue of items.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The size is 0 or less.</exception>
    /// <exception cref="ArgumentException">There are more items than the queue holds.</exception>
    public FixedSizeQueue(int size, IEnumerable<T> data)
        : this(size)
    {
        ArgumentNullException.ThrowIfNull(data);
        foreach (T item in data)
        {
            if (Count == Capacity)
            {
                throw new ArgumentException($"There are more items than the {size} that the queue holds.", nameof(data));
            }

            Enqueue(item);
        }
    }

    /// <inheritdoc/>
    public int Count { get; private set; }

    /// <summary>Most items the queue holds.</summary>
    public int Capacity => _items.Length;

    /// <summary>An item; the oldest is 0.</summary>
    public T this[int index]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfNegative(index);
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, Count);
            return _items[(_start + index) % Capacity];
        }
    }

    /// <summary>Adds an item.</summary>
    public void Enqueue(T item)
    {
        _items[(_start + Count) % Capacity] = item;
        if (Count < Capacity)
        {
            Count++;
        }
        else
        {
            _start = (_start + 1) % Capacity;
        }
    }

    /// <inheritdoc/>
    public IEnumerator<T> GetEnumerator()
    {
        for (int i = 0; i < Count; i++)
        {
            yield return this[i];
        }
    }

    /// <inheritdoc/>
    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
}
