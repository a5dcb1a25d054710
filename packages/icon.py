"""Draws icon.png, the packages' icon: a slice of kiwi whose seeds stand on a grid of quantized levels."""
import math
import struct
import zlib

SIZE = 128
SAMPLES = 4  # per pixel and axis


def color(x, y):
    """The color of a point, as red, green, blue, alpha in 0..1; the unit circle is the fruit."""
    radius, angle = math.hypot(x, y), math.atan2(y, x)
    if radius > 0.97:
        return 0, 0, 0, 0
    if radius > 0.89:
        return 0.42, 0.30, 0.18, 1
    for ring, count in ((0.44, 12), (0.58, 16)):
        step = 2 * math.pi / count
        nearest = round(angle / step) * step
        along = (radius - ring) / 0.075
        across = ring * (angle - nearest) / 0.032
        if along * along + across * across < 1:
            return 0.10, 0.12, 0.08, 1
    if radius < 0.30 + 0.02 * math.cos(8 * angle):
        return 0.95, 0.96, 0.80, 1
    ray = 0.05 * math.cos(28 * angle) * (0.89 - radius)
    fade = (radius - 0.3) / 0.59
    return 0.66 - 0.24 * fade + ray, 0.82 - 0.16 * fade + ray, 0.30 - 0.10 * fade, 1


def pixel(column, row):
    total = [0.0] * 4
    for i in range(SAMPLES):
        for j in range(SAMPLES):
            x = 2 * (column + (i + 0.5) / SAMPLES) / SIZE - 1
            y = 2 * (row + (j + 0.5) / SAMPLES) / SIZE - 1
            r, g, b, a = color(x, y)
            total = [total[0] + r * a, total[1] + g * a, total[2] + b * a, total[3] + a]
    alpha = total[3]
    rgb = [c / alpha if alpha else 0 for c in total[:3]] + [alpha / SAMPLES**2]
    return bytes(round(255 * min(max(c, 0), 1)) for c in rgb)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


rows = b"".join(b"\0" + b"".join(pixel(column, row) for column in range(SIZE)) for row in range(SIZE))
with open(__file__.replace(".py", ".png"), "wb") as out:
    out.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, 8, 6, 0, 0, 0)))
    out.write(chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))
