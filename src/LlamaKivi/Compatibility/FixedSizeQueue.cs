using System.Collections;

namespace LlamaKivi.Common;

/// <summary>A queue of fixed capacity; a new item evicts the oldest when the queue is full.</summary>
public class FixedSizeQueue<T> : IReadOnlyList<T>
{
    private readonly T[] _items;  // ring buffer
    private int _start;

    /// <summary>Creates an empty queue.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The capacity is not positive.</exception>
    public FixedSizeQueue(int size)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(size);
        _items = new T[size];
    }

    /// <summary>Creates a queue with items, oldest first.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The capacity is not positive.</exception>
    /// <exception cref="ArgumentException">There are more items than the capacity.</exception>
    public FixedSizeQueue(int size, IEnumerable<T> data)
        : this(size)
    {
        ArgumentNullException.ThrowIfNull(data);
        foreach (T item in data)
        {
            if (Count == Capacity)
            {
                throw new ArgumentException($"There are more items than the queue's capacity of {size}.", nameof(data));
            }

            Enqueue(item);
        }
    }

    /// <inheritdoc/>
    public int Count { get; private set; }

    /// <summary>Maximum number of items.</summary>
    public int Capacity => _items.Length;

    /// <summary>Item at an index; 0 is the oldest.</summary>
    public T this[int index]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfNegative(index);
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, Count);
            return _items[(_start + index) % Capacity];
        }
    }

    /// <summary>Adds an item and evicts the oldest if the queue is full.</summary>
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
