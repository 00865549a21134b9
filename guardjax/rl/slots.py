"""Decoding a fixed number of answers at a time: a slot whose answer ends takes the next one.

Continuous batching (Orca, Yu et al., OSDI 2022) with static shapes, in one program. All prompts
have gone through the model and all first tokens are drawn, so the queue holds answers, and filling
a slot means to gather its prompt's keys and values and to begin an empty buffer. Two loops: the
outer fills free slots, the inner decodes until one is free again.

Every slot has a place of its own in its buffer, so token t of an answer always meets its keys in
the same columns: at a given number of slots, what comes out does not depend on who else is there.

Decoding all answers together takes as many steps of B * G rows as the longest is long; this takes
about `sum(length) / S` steps of S rows. In exchange, each slot has its prompt's keys for itself,
where together the answers of a group read them once. So slots pay for answers of very different
lengths to prompts that are not much longer than these, or where B * G buffers do not fit.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from guardjax.rl.answers import slot_segment
from guardjax.rl.decoding import Start, begin, next_logits, unfinished
from guardjax.rl.draw import draw
from guardjax.rl.model_fns import KVCache, ModelFns, Params
from guardjax.rl.sampling_params import SamplingParams
from guardjax.rl.stops import ends_with, push
from guardjax.rl.transform import LogitTransform
from guardjax.types import Array, Samples


@flax.struct.dataclass
class SlotState:
    """All that one step hands to the next. Of N = B * G answers, b * G + g is of prompt b."""

    answer: Array     # [S] int32, which answer each slot decodes; N where there is none
    recent: Array     # [S, K] int32, its last tokens; the newest is not yet in the cache
    cache: KVCache    # lead [S]: each slot's prompt, then its buffer
    taken: Array      # [] int32, answers of the queue that got a slot
    samples: Samples  # [N]


def decode_in_slots(fns: ModelFns, params: Params, start: Start, sampling: SamplingParams,
                    transform: LogitTransform) -> Samples:
    """Samples [B, G], of which `sampling.slots` are decoded at a time.

    Raises:
      ValueError: the model has no slots.
    """
    if fns.open_slots is None or fns.refill_slots is None:
        raise ValueError("this model's cache has no slots; set slots to 0 to decode all together")
    flat = lambda array: array.reshape(-1, *array.shape[2:])
    samples, first = jax.tree.map(flat, begin(start, sampling))
    keys, limit = flat(start.keys), flat(start.limit)
    if sampling.max_tokens > 1:
        samples = _decode_queue(fns, params, start, sampling, transform, samples, first, keys,
                                limit)
    return jax.tree.map(lambda array: array.reshape(*start.limit.shape, *array.shape[1:]), samples)


def _decode_queue(fns: ModelFns, params: Params, start: Start, sampling: SamplingParams,
                  transform: LogitTransform, samples: Samples, first: Array, keys: Array,
                  limit: Array) -> Samples:
    """Goes on with `samples` [N] of one token each, whose last tokens are `first` [N, K]."""
    num, group, num_slots = limit.shape[0], start.limit.shape[1], sampling.slots
    next_pos = start.prompts.next_pos.reshape(-1)
    waiting = unfinished(samples, limit)
    queue, num_waiting = jnp.argsort(~waiting, stable=True), jnp.sum(waiting, dtype=jnp.int32)

    def live(state: SlotState) -> Array:
        goes_on = unfinished(state.samples, limit)
        return goes_on.at[state.answer].get(mode="fill", fill_value=False)

    def fill(state: SlotState) -> SlotState:
        """Gives the free slots the next answers of the queue, as far as there are any."""
        free = ~live(state)
        place = state.taken + jnp.cumsum(free, dtype=jnp.int32) - 1
        fresh = free & (place < num_waiting)
        answer = jnp.where(fresh, queue.at[place].get(mode="clip"),
                           jnp.where(free, num, state.answer))
        recent = jnp.where(fresh[:, None], first.at[answer].get(mode="clip"), state.recent)
        prompt = jnp.minimum(answer, num - 1) // group
        cache = fns.refill_slots(state.cache, start.cache, prompt, fresh)
        return SlotState(answer, recent, cache, state.taken + jnp.sum(fresh, dtype=jnp.int32),
                         state.samples)

    def decode(state: SlotState) -> SlotState:
        """One more token of every slot's answer."""
        row, alive = jnp.minimum(state.answer, num - 1), live(state)
        step = state.samples.length[row]
        segment = slot_segment(next_pos[row // group], state.recent[:, -1], alive,
                               step - 1)
        (hidden,), cache = fns.forward(params, (segment,), None, state.cache)
        logits = transform(next_logits(fns, params, hidden[:, 0]))
        drawn = draw(keys[row], step, logits, greedy=sampling.greedy,
                     truncation=sampling.truncation)
        recent = push(state.recent, drawn.token)
        row = jnp.where(alive, row, num)        # what is written there is dropped
        old = state.samples
        samples = Samples(
            tokens=old.tokens.at[row, step].set(drawn.token, mode="drop"),
            length=old.length.at[row].add(1, mode="drop"),
            logp=old.logp.at[row, step].set(drawn.logp, mode="drop"),
            model_logp=old.model_logp.at[row, step].set(drawn.model_logp, mode="drop"),
            ended=old.ended.at[row].set(ends_with(recent, sampling.stops), mode="drop"))
        return state.replace(recent=recent, cache=cache, samples=samples)

    def unanswered(state: SlotState) -> Array:
        return jnp.any(live(state)) | (state.taken < num_waiting)

    def all_busy(state: SlotState) -> Array:
        alive = live(state)
        return jnp.any(alive) & (jnp.all(alive) | (state.taken == num_waiting))

    nobody = jnp.zeros(num_slots, jnp.int32)
    state = SlotState(
        answer=nobody + num, recent=first[nobody],
        cache=fns.open_slots(start.cache, nobody, sampling.max_tokens - 1),
        taken=jnp.int32(0), samples=samples)
    refilled = lambda state: jax.lax.while_loop(all_busy, decode, fill(state))
    return jax.lax.while_loop(unanswered, refilled, state).samples
