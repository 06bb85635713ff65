"""Generates answers in batches: prompts are run once, then one token at a time from a cache.

Every answer has a random key of its own, made from the seed, the example's id and the
sample's number, so an answer does not depend on what else is in its batch, on the order of
the prompts or on how many answers are drawn. Prompts are padded on the left to a length that
depends on the prompt alone, so that its rounding does not depend on the others either.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ilp_jax.data.batches import LENGTH_BUCKETS, TARGET_BUCKETS
from ilp_jax.mesh.rows import fetch, placement_of, put
from ilp_jax.models.decoder import Decoder
from ilp_jax.models.layers import Past
from ilp_jax.models.lora import variables_of
from ilp_jax.train.losses import token_statistics


class Samples(NamedTuple):
    """Answers: E prompts, N answers to each, up to G tokens an answer.

    Attributes:
      tokens_ExNxG: int32, 0 after an answer's last token.
      lengths_ExN: int32 tokens, the end token included where it was drawn.
      ended_ExN: bool, whether an end token was drawn; otherwise the answer was cut.
      logprobs_ExN: float32 nats, log-probability of the answer's tokens, end token included,
        at the temperature of the draw (at 1 where decoding is greedy).
    """

    tokens_ExNxG: np.ndarray
    lengths_ExN: np.ndarray
    ended_ExN: np.ndarray
    logprobs_ExN: np.ndarray


class _Prompts(NamedTuple):
    """A batch of B prompts of up to P tokens, padded on the left; all int32 but the ids.

    Attributes:
      tokens_BxP: token ids, 0 for padding.
      length_B: tokens of the prompt.
      limit_B: tokens after which an answer is cut.
      id_Bx2: uint32, the example's id in two halves.
    """

    tokens_BxP: np.ndarray
    length_B: np.ndarray
    limit_B: np.ndarray
    id_Bx2: np.ndarray


class _State(NamedTuple):
    """Answers so far; B counts answers, all of one prompt next to each other.

    Attributes:
      n: int32, tokens drawn.
      tokens_BxG: int32.
      length_B: int32.
      logprob_B: float32.
      ended_B: bool, an end token was drawn.
      done_B: bool, ended or cut.
      keys_values: of the prompt's tokens, then of the answer's, each [L, B, P + G - 1, K, N].
    """

    n: jax.Array
    tokens_BxG: jax.Array
    length_B: jax.Array
    logprob_B: jax.Array
    ended_B: jax.Array
    done_B: jax.Array
    keys_values: Any


def sample(
    decoder: Decoder,
    params: Any,
    prompts: Sequence[np.ndarray],
    *,
    example_ids: Sequence[int],
    max_new_tokens: int | Sequence[int],
    temperature: float,
    seed: int,
    end_id: int | Sequence[int],
    n_samples: int = 1,
    batch_size: int = 8,
    bar: Any = None,
) -> Samples:
    """Answers to prompts, each token drawn from softmax(logits / temperature).

    Compiles once for every pair of a prompt length and an answer length out of the ladders
    ``LENGTH_BUCKETS`` and ``TARGET_BUCKETS``.

    Args:
      decoder: the model.
      params: its parameters on the device.
      prompts: int token ids of each prompt, at least one.
      example_ids: a number in [0, 2**63) a prompt, which makes its random keys.
      max_new_tokens: tokens after which an answer is cut; one number, or one a prompt.
      temperature: divides the logits; 0 takes the likeliest token (the first of equal ones).
      seed: in [0, 2**32).
      end_id: the token that ends an answer, or several, any of which does.
      n_samples: answers a prompt.
      batch_size: prompts a batch.
      bar: a progress bar to advance by one a prompt, or None.

    Returns:
      The answers, in the order of the prompts; G is the largest of ``max_new_tokens``.

    Raises:
      ValueError: an empty prompt, a limit below 1, or several greedy answers a prompt.
    """
    limits = np.broadcast_to(np.asarray(max_new_tokens, np.int32), len(prompts))
    if min(map(len, prompts), default=1) < 1 or min(limits, default=1) < 1 or n_samples < 1:
        raise ValueError("a prompt, a limit or n_samples is below 1")
    if temperature == 0 and n_samples > 1:
        raise ValueError("greedy answers to one prompt are all the same")
    n, width = len(prompts), int(max(limits, default=0))
    out = Samples(
        np.zeros((n, n_samples, width), np.int32),
        np.zeros((n, n_samples), np.int32),
        np.zeros((n, n_samples), bool),
        np.zeros((n, n_samples), np.float32),
    )
    place = placement_of(params)
    ends_K = np.atleast_1d(np.asarray(end_id, np.int32))
    common = put((ends_K, np.float32(temperature), np.uint32(seed)), place.whole)
    batch_size = place.batch_size(batch_size)
    for part, n_new, batch in _batches(prompts, example_ids, limits, batch_size):
        answers = _generate(
            params,
            put(batch, place.rows),
            *common,
            decoder=decoder,
            n_new=n_new,
            n_samples=n_samples,
            greedy=temperature == 0,
        )
        tokens, *rest = fetch(answers)
        known = min(width, n_new)
        out.tokens_ExNxG[part, :, :known] = tokens[: len(part), :, :known]
        for whole, values in zip(out[1:], rest, strict=True):
            whole[part] = values[: len(part)]
        if bar is not None:
            bar.advance(len(part))
    return out


def _batches(
    prompts: Sequence[np.ndarray],
    example_ids: Sequence[int],
    limits: np.ndarray,
    batch_size: int,
) -> Iterator[tuple[np.ndarray, int, _Prompts]]:
    """Places of the prompts of each batch, tokens to make room for, and the arrays."""
    groups = defaultdict(list)
    for i, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        groups[_bucket(len(prompt), LENGTH_BUCKETS), _bucket(limit, TARGET_BUCKETS)].append(i)
    halves_Ex2 = np.array([(one >> 32, one & 0xFFFFFFFF) for one in map(int, example_ids)])
    for (length, n_new), members in sorted(groups.items()):
        for start in range(0, len(members), batch_size):
            part = np.array(members[start : start + batch_size])
            # Rows that only fill the batch end with their first token.
            batch = _Prompts(
                np.zeros((batch_size, length), np.int32),
                np.ones(batch_size, np.int32),
                np.ones(batch_size, np.int32),
                np.zeros((batch_size, 2), np.uint32),
            )
            for row, i in enumerate(part):
                batch.tokens_BxP[row, length - len(prompts[i]) :] = prompts[i]
                batch.length_B[row] = len(prompts[i])
            n = len(part)
            batch.limit_B[:n] = limits[part]
            batch.id_Bx2[:n] = halves_Ex2[part]
            yield part, n_new, batch


def _bucket(size: int, buckets: Sequence[int]) -> int:
    return next(bucket for bucket in buckets if bucket >= size)


@functools.partial(jax.jit, static_argnames=("decoder", "n_new", "n_samples", "greedy"))
def _generate(
    params: Any,
    prompts: _Prompts,
    ends_K: jax.Array,
    temperature: jax.Array,
    seed: jax.Array,
    *,
    decoder: Decoder,
    n_new: int,
    n_samples: int,
    greedy: bool,
) -> tuple[jax.Array, ...]:
    """Tokens [B, n_samples, n_new], lengths, whether ended, and log-probabilities."""
    c = decoder.config
    n_prompts, prompt_length = prompts.tokens_BxP.shape
    slot_P = jnp.arange(prompt_length, dtype=jnp.int32)
    real_BxP = slot_P[None, :] >= prompt_length - prompts.length_B[:, None]
    nothing = jnp.zeros((c.n_layers, n_prompts, 0, c.n_kv_heads, c.head_dim), c.compute_dtype)
    logits_Bx1xV, keys_values = decoder.apply(
        variables_of(params),
        prompts.tokens_BxP,
        jnp.maximum(jnp.cumsum(real_BxP, axis=1, dtype=jnp.int32) - 1, 0),
        jnp.where(real_BxP, 0, -1).astype(jnp.int32),
        jnp.full((n_prompts, 1), prompt_length - 1, jnp.int32),
        past=Past((nothing, nothing), jnp.zeros((n_prompts, 0), bool)),
    )

    def spread(x_Bx, axis=0):
        """From one entry a prompt to one an answer."""
        return jnp.repeat(x_Bx, n_samples, axis=axis)

    # The last token drawn is never run, so the cache has one slot less than the answer.
    room = ((0, 0), (0, 0), (0, n_new - 1), (0, 0), (0, 0))
    keys_values = jax.tree.map(lambda kv: jnp.pad(spread(kv, axis=1), room), keys_values)
    slot_S = jnp.arange(prompt_length + n_new - 1, dtype=jnp.int32)
    in_prompt_BxS = spread(jnp.pad(real_BxP, ((0, 0), (0, n_new - 1))))
    length_B, limit_B = map(spread, (prompts.length_B, prompts.limit_B))
    keys_B = None if greedy else _keys(seed, prompts.id_Bx2, n_samples).reshape(-1)

    def draw(state: _State, logits_BxV: jax.Array) -> _State:
        """Adds a token to every answer that is not done."""
        if greedy:
            token_B = jnp.argmax(logits_BxV, axis=-1)
        else:
            logits_BxV = logits_BxV / temperature
            step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, state.n)
            token_B = jax.vmap(jax.random.categorical)(step_keys_B, logits_BxV)
        token_B = jnp.where(state.done_B, 0, token_B.astype(jnp.int32))
        logprob_B = -token_statistics(logits_BxV, token_B).loss
        is_end_B = (token_B[:, None] == ends_K[None, :]).any(axis=-1)
        ended_B = state.ended_B | (~state.done_B & is_end_B)
        return state._replace(
            n=state.n + 1,
            tokens_BxG=state.tokens_BxG.at[:, state.n].set(token_B),
            length_B=state.length_B + ~state.done_B,
            logprob_B=state.logprob_B + jnp.where(state.done_B, 0.0, logprob_B),
            ended_B=ended_B,
            done_B=state.done_B | ended_B | (state.n + 1 >= limit_B),
        )

    def step(state: _State) -> _State:
        """Runs the token drawn last, and draws the next."""
        last_B = state.tokens_BxG[:, state.n - 1]
        slot = prompt_length + state.n - 1
        drawn_S = (slot_S >= prompt_length) & (slot_S < slot)
        logits_Bx1xV, new = decoder.apply(
            variables_of(params),
            last_B[:, None],
            (length_B + state.n - 1)[:, None],
            jnp.zeros_like(last_B)[:, None],
            past=Past(state.keys_values, in_prompt_BxS | drawn_S[None, :]),
        )
        keys_values = jax.tree.map(
            lambda cache, own: jax.lax.dynamic_update_slice_in_dim(cache, own, slot, axis=2),
            state.keys_values,
            new,
        )
        return draw(state._replace(keys_values=keys_values), logits_Bx1xV[:, 0])

    n_answers = n_prompts * n_samples
    state = _State(
        n=jnp.int32(0),
        tokens_BxG=jnp.zeros((n_answers, n_new), jnp.int32),
        length_B=jnp.zeros(n_answers, jnp.int32),
        logprob_B=jnp.zeros(n_answers, jnp.float32),
        ended_B=jnp.zeros(n_answers, bool),
        done_B=jnp.zeros(n_answers, bool),
        keys_values=keys_values,
    )
    state = draw(state, spread(logits_Bx1xV[:, 0]))
    state = jax.lax.while_loop(lambda state: ~jnp.all(state.done_B), step, state)
    found = (state.tokens_BxG, state.length_B, state.ended_B, state.logprob_B)
    return tuple(x.reshape(n_prompts, n_samples, *x.shape[1:]) for x in found)


def _keys(seed: jax.Array, id_Bx2: jax.Array, n_samples: int) -> jax.Array:
    """The random key of every answer, from nothing but seed, example and number. [B, N]."""
    # Named, so that another default of JAX's does not change what is drawn.
    root = jax.random.key(seed, impl="threefry2x32")

    def of_example(halves_2):
        key = jax.random.fold_in(jax.random.fold_in(root, halves_2[0]), halves_2[1])
        numbers = jnp.arange(n_samples, dtype=jnp.uint32)
        return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)

    return jax.vmap(of_example)(id_Bx2)
