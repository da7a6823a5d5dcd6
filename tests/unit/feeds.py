"""What all ranks of a feed yield together, and through kills."""

from itertools import chain

from gristmill.pipelines.feed import TokenFeed


def heads(batches):
    """The first token of each sample: the number of its row."""
    return [batch["tokens"][:, 0].tolist() for batch in batches]


def global_batches(datasets, num_batches, *, world_size=1, state=None, **options):
    """What all ranks together yield, and the state after it."""
    ranks = []
    for rank in range(world_size):
        feed = TokenFeed(datasets, rank=rank, world_size=world_size, **options)
        if state is not None:
            feed.load_state_dict(state)
        stream = iter(feed)
        ranks.append([next(stream) for _ in range(num_batches)])
    joined = [list(chain(*parts)) for parts in zip(*map(heads, ranks), strict=True)]
    return joined, feed.state_dict()


def batches_with_kills(datasets, stops, **options):
    """What feeds yield of which each goes on where the one before stopped: (world size, number of batches) of each."""
    found, state = [], None
    for world_size, num_batches in stops:
        if num_batches:
            part, state = global_batches(datasets, num_batches, world_size=world_size, state=state, **options)
            found += part
    return found
