"""Time to draw images from PixelHVAE pixel by pixel, keeping features, beside the plain loop of a pass for each pixel.

    python benchmarks/sampling.py [--images 1 16 64] [--rounds 3] [--out results/benchmarks/sampling.json]

28 x 28 binary images, the decoder of the paper. The plain loop is timed on `--passes` of its 784 passes, which are all
alike, and scaled up.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from vaepriors.checkpoint import write_json
from vaepriors.distributions import naive_pixel_draws
from vaepriors.networks import pixel_hierarchical_decoder
from vaepriors.store import session

SHAPE, LATENT = (1, 28, 28), 40


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=28)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    decoder = pixel_hierarchical_decoder(SHAPE, LATENT).to(device)
    rows = []
    for images in given.images:
        law = decoder(torch.randn(images, 2 * LATENT, device=device))
        blank = torch.zeros(images, *SHAPE, device=device)
        kept, plain = [], []
        for _ in range(given.rounds):  # in turn, so that both meet the same machine
            kept.append(seconds(law.sample))
            some = itertools.islice(naive_pixel_draws(law.conditionals, blank), given.passes)
            plain.append(seconds(lambda some=some: list(some)) * 28 * 28 / given.passes)
        row = {"images": images, "seconds": statistics.median(kept), "plain_loop_seconds": statistics.median(plain)}
        rows.append(row)
        gain = row["plain_loop_seconds"] / row["seconds"]
        print(
            f"{images} images: {row['seconds']:.2f} s, plain loop {row['plain_loop_seconds']:.1f} s: {gain:.0f} times"
        )
    if given.out:
        content = {"session": session(0, device), "passes_timed": given.passes, "pixelhvae": rows}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(given.out, content)


if __name__ == "__main__":
    main()
