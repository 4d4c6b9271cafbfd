"""Write a set into tar shards as webdataset lays them out: 000017.png and 000017.cls, one sample after another.

    python data_scripts/write_shards.py stamps shards/ --split train --per-shard 64
    python -m sslcore.training simclr --data shards/ --img-size 96 --set img_size=64

For sets that `sslcore.data.load` knows, which fit in memory: to try the streaming reader, or to feed other tools.
Same images, same bytes: nothing of the clock or the user is written.
"""

from __future__ import annotations

import argparse
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from sslcore.data import ImageSet, load
from sslcore.files import written_aside
from sslcore.validate import require


def encoded(images: ImageSet, row: int, kind: str = "png") -> bytes:
    """One image of a set as the bytes of a file; kind: "png" (exact) or "jpeg"."""
    from PIL import Image

    pixels = images.images[row]
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy())
    picture.save(buffer, kind, **({"quality": 92} if kind == "jpeg" else {}))
    return buffer.getvalue()


def members(images: ImageSet, rows: range, kind: str) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every member of one shard."""
    for row in rows:
        yield f"{row:06d}.{kind.replace('jpeg', 'jpg')}", encoded(images, row, kind)
        if images.labels is not None:
            yield f"{row:06d}.cls", str(int(images.labels[row])).encode()


def write_tar(path: Path, content: Iterator[tuple[str, bytes]]) -> None:
    """A plain tar archive, written aside and renamed."""
    with written_aside(path) as aside, tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in content:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def write_shards(images: ImageSet, folder: str | Path, per_shard: int = 1000, kind: str = "png") -> list[Path]:
    """Write every image of the set; returns the shards, named train-000000.tar and so on after the split."""
    require(per_shard >= 1, f"per_shard: expected at least 1, got {per_shard}")
    paths = []
    for number, first in enumerate(range(0, len(images), per_shard)):
        paths.append(Path(folder) / f"{images.split}-{number:06d}.tar")
        write_tar(paths[-1], members(images, range(first, min(first + per_shard, len(images))), kind))
    return paths


def main() -> None:
    """Run the command."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("name", help="a set, as for sslcore.data.load")
    options.add_argument("folder", type=Path)
    options.add_argument("--split", default="train")
    options.add_argument("--per-shard", type=int, default=1000)
    options.add_argument("--kind", choices=("png", "jpeg"), default="png")
    chosen = options.parse_args()
    images = load(chosen.name, chosen.split)
    paths = write_shards(images, chosen.folder, chosen.per_shard, chosen.kind)
    print(f"wrote {len(images)} images to {len(paths)} shards in {chosen.folder}")


if __name__ == "__main__":
    main()
