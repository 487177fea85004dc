"""Ways to do the same work, each in its turn in every round, and what one costs by the other."""
import statistics

import compare


def play(options, ways):
    """{way: [result, ...]} of ways {name: function that takes a turn}."""
    turns = {way: [] for way in ways}
    for number in range(options.rounds):
        for way in compare.rotated(list(ways), number):
            turns[way].append(ways[way]())
    return turns


def ratios_of(turns, way, other):
    """CPU per request of one way by that of the other, one ratio for each round, in ascending order."""
    key = "cpu_us_per_request"
    return sorted(mine[key] / theirs[key] for mine, theirs in zip(turns[way], turns[other]))


def text(values):
    return f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})"


def clearly_above(values, limit):
    """The median is, and three quarters of the rounds are: single ones are dear when the machine has other work."""
    return values[len(values) // 4] > limit
