"""A scope learns both questions from texts whose roles are known; what it is taught, by hand."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_equal

from mend_jax.data.bucketing import SHORT
from mend_jax.data.encoding import Tokens
from mend_jax.data.prompt_batches import WINDOW, prompt_batches
from mend_jax.data.records import Locality, Record
from mend_jax.data.scope_batches import DRAWN, ScopeBatch, scope_batches
from mend_jax.data.scope_texts import (
    AFTER,
    ASKED,
    EDIT,
    FAR,
    NEAR,
    OWN,
    PAD,
    RUNNING,
    WITHIN,
    Corpus,
    Running,
    subjects_of,
)
from mend_jax.data.token_records import TokenRecord
from mend_jax.data.trunk_cache import TrunkCache
from mend_jax.scopes.active import NONE, fires
from mend_jax.scopes.network import Keys, two_keys
from mend_jax.training.scope import standardised, train_relation, train_scope
from mend_jax.training.scope_losses import empty_bank, prompts_loss, scope_loss
from mend_jax.training.thresholds import ask

D, SUBJECTS, RELATIONS = 48, 240, 6
STAGES = (1, 2)


def text(subject: int, relation: int, answer: int) -> Tokens:
    """Its subject, its relation, a token that ends the prompt; then its answer."""
    tokens = np.asarray([1000 + subject, 200 + relation, 300, 400 + answer], np.int32)
    return Tokens(tokens[:4], np.asarray([2, 3], np.int32), tokens[2:4], None, None, "")


def record(subject: int, relation: int) -> TokenRecord:
    other = (relation + 1) % RELATIONS
    near, own = text(subject + 1, relation, 1), text(subject, other, 2)
    far = text(subject + 2, other, 3)
    again = text(subject, relation, 3)
    kinds = ("near", "own", "far")
    named = (subject + 1, subject, subject + 2)
    asked = (Locality(f"of {s}:", "t", kind) for s, kind in zip(named, kinds, strict=True))
    words = Record("p", "t", locality=tuple(asked), subject=str(subject))
    return TokenRecord(text(subject, relation, 0), (again,), (near, own, far), kinds, words)


def states(tokens: np.ndarray) -> np.ndarray:
    """A random vector of each token; late, also those of all before it."""
    vectors = np.stack([np.random.default_rng(int(t)).standard_normal(D) for t in tokens])
    late = np.cumsum(vectors, axis=0)
    return np.concatenate([late, vectors, late], axis=1).astype(np.float32)


def kept_of(tokens: np.ndarray) -> np.ndarray:
    """As a cache gives them."""
    return states(tokens)[:, D:].reshape(len(tokens), 2, D)


@pytest.fixture(scope="module")
def cache() -> tuple[list[TokenRecord], list[np.ndarray], TrunkCache]:
    records = [record(s, s % RELATIONS) for s in range(SUBJECTS)]
    running = [np.arange(500 + 6 * i, 506 + 6 * i, dtype=np.int32) for i in range(20)]
    texts = [p.tokens for r in records for p in (*r.outer, *r.locality)] + running
    texts += [np.append(r.edit.tokens, r.edit.labels[-1]) for r in records]
    unique = {t.tobytes(): t for t in texts}
    rows, places, done = [], {}, 0
    for key, tokens in unique.items():
        rows.append(states(tokens))
        places[key] = (done, len(tokens))
        done += len(tokens)
    return records, running, TrunkCache(np.concatenate(rows), places, kept=2)


def told(cache: Any) -> Corpus:
    records, running, kept = cache
    spoken = [np.append(r.edit.tokens, r.edit.labels[-1]) for r in records]
    texts = [Running(x, i if i < 8 else -1) for i, x in enumerate(running)]
    return Corpus(records, spoken, texts, kept.states)


def test_every_position_has_its_role(cache: Any):
    batch = next(scope_batches(told(cache), batch=5, seed=0, longest=8))
    assert batch.states.shape == (5 * 6 + 32, 8, 2, D) and batch.record.tolist()[-1] == -1
    seen = {tuple(row[:4]) for row, who in zip(batch.roles, batch.record, strict=True) if who >= 0}
    assert seen == {(WITHIN, WITHIN, role, AFTER) for role in (EDIT, ASKED, NEAR, FAR, OWN)}
    assert 12 <= sum(row[0] == RUNNING for row in batch.roles) <= 20
    np.testing.assert_array_equal(batch.roles[batch.held, batch.at], EDIT)
    np.testing.assert_array_equal(batch.record[batch.held], np.arange(5))
    assert np.all(batch.roles[:, 6:] == PAD)


def test_long_prompts_are_among_themselves(cache: Any):
    """One batch in five is of records with prompts after much other text, and of these prompts."""
    records, running, _ = cache
    before = np.arange(600, 600 + SHORT, dtype=np.int32)

    def after_text(pair: Tokens) -> Tokens:
        tokens = np.append(before, pair.tokens).astype(np.int32)
        return pair._replace(tokens=tokens, read=pair.read + SHORT)

    some = [
        r._replace(rephrases=(*r.rephrases, after_text(r.rephrases[0]))) if i % 2 else r
        for i, r in enumerate(records[:40])
    ]
    corpus = told((some, running, cache[2]))._replace(states=kept_of)
    batches = list(itertools.islice(scope_batches(corpus, 8, seed=0, longest=64), 24))
    long = [b for b in batches if b.states.shape[1] == 64]
    assert 1 <= len(long) <= 10 and {b.states.shape[:2] for b in batches} == {(80, 32), (56, 64)}
    for batch in long:
        assert len(batch.at) == 4
        assert np.sum(np.isin(batch.roles[:, SHORT:], (ASKED, EDIT))) == 4  # told or asked there


def test_what_is_taught_by_hand(cache: Any):
    """Two records, and a text about the first: the losses of the plain definitions, position by
    position."""
    scope = two_keys(STAGES, heads=2, width=4, subject=8, relation=8, hidden=8)
    phi = scope.init(jax.random.key(1), D)
    corpus = told((cache[0][:2], *cache[1:]))
    batch: ScopeBatch = next(scope_batches(corpus, batch=2, seed=0, longest=8))
    assert {0, 1} < set(batch.record[np.any(batch.roles == RUNNING, axis=1)].tolist())
    bank = empty_bank(scope, phi, np.asarray([0, 1, 0, 2, 3], np.int32))
    rng = np.random.default_rng(0)
    drawn = Keys(*(jnp.asarray(rng.standard_normal(x.shape), jnp.float32) for x in bank.keys))
    unit = Keys(*(x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in drawn))
    bank = bank._replace(keys=unit, known=jnp.asarray([True, True, True, True, False]))
    total, (losses, after) = scope_loss(scope, phi, batch, bank)
    keys = scope.keys(phi, jnp.asarray(batch.states), jnp.asarray(batch.mask))
    held = Keys(*(x[batch.held, batch.at] for x in keys))
    near = (np.asarray(x, np.float64) for x in scope.near(phi, keys, held))
    p, q = (1 / (1 + np.exp(-x)) for x in near)

    def told_of(subject: int, who: int, role: int) -> bool:
        """A text is about its own subject; the neighbour of the first is the second's."""
        mine = batch.number[who]
        return bool(subject == mine or (role == NEAR and (mine, subject) == (0, 1)))

    found: dict[int, list[float]] = {}
    wrong: dict[int, list[float]] = {}
    for i, j in itertools.product(*map(range, batch.roles.shape)):
        who, role = batch.record[i], int(batch.roles[i, j])
        a, b = (x[i, j, max(who, 0)] for x in (p, q))
        taught = {
            ASKED: -np.log(a) - np.log(b),
            NEAR: -np.log(1 - a) - 0.3 * np.log(b),
            FAR: -np.log(1 - a) - np.log(1 - b),
            OWN: -0.3 * np.log(a) - np.log(1 - b),
            WITHIN: -np.log(1 - b),
            AFTER: -np.log(1 - b),
            RUNNING: -np.log(1 - b) if who >= 0 else 0.0,
        }
        found.setdefault(role, []).append(taught.get(role, 0.0))
        others = [e for e in range(2) if who < 0 or not told_of(batch.number[e], who, role)]
        wrong.setdefault(role, []).append(-sum(np.log(1 - p[i, j, e] * q[i, j, e]) for e in others))
    named = {"asked": (ASKED,), "near": (NEAR,), "far": (FAR,), "own": (OWN,), "within": (WITHIN,)}
    named["after"] = (AFTER, RUNNING)
    for name, roles in named.items():
        value = sum(np.mean(found[role]) for role in roles)
        np.testing.assert_allclose(losses[name], value, rtol=1e-3, atol=1e-5)
    groups = ((ASKED, NEAR, FAR, OWN), (WITHIN, AFTER), (RUNNING,))
    wanted = sum(np.mean([x for role in group for x in wrong[role]]) for group in groups)
    np.testing.assert_allclose(losses["others"], wanted, rtol=1e-3, atol=3e-5)
    np.testing.assert_allclose(total, sum(map(float, losses.values())), rtol=1e-5)
    p, q = (1 / (1 + np.exp(-np.asarray(x, np.float64))) for x in scope.near(phi, keys, bank.keys))
    beside = []
    for i, j in zip(*np.nonzero(np.isin(batch.roles, tuple(DRAWN))), strict=True):
        who, role = batch.record[i], int(batch.roles[i, j])
        rest = [e for e in range(4) if not told_of(int(bank.subject[e]), who, role)]  # 4: new
        beside.append(-sum(np.log(1 - p[i, j, e] * q[i, j, e]) for e in rest))
    np.testing.assert_allclose(losses["held"], 0.3 * np.mean(beside), rtol=1e-3, atol=1e-5)
    assert_equal(after.keys.subject[batch.number], held.subject)  # the batch's own are new
    assert_equal(after.keys.relation[2:], bank.keys.relation[2:])


def test_what_prompts_alone_teach_by_hand(cache: Any):
    """They end where the window does, with nothing but themselves in it."""
    scope = two_keys(STAGES, heads=2, width=4, subject=8, relation=8, hidden=8)
    phi = scope.init(jax.random.key(1), D)
    corpus = told((cache[0][:2], *cache[1:]))
    prompts = next(prompt_batches(corpus, seed=0))
    assert np.all(prompts.there) and prompts.states.shape == (5, 2, WINDOW, 2, D)
    assert np.all(prompts.mask == (np.arange(WINDOW) >= WINDOW - 3))
    edit, asked, near, far, own = (
        np.asarray(scope.keys(phi, jnp.asarray(part[:, -3:])).relation[:, -1])
        for part in prompts.states
    )
    steep, least = (float(phi[name]["relation"]) for name in ("steep", "threshold"))

    def said(keys: np.ndarray, sign: int) -> float:
        logit = np.exp(steep) * (np.sum(keys * edit, axis=-1) - least)
        return float(np.mean(np.log1p(np.exp(-sign * logit))))

    by_hand = said(asked, 1) + 0.3 * said(near, 1) + said(far, -1) + said(own, -1)
    np.testing.assert_allclose(prompts_loss(scope, phi, prompts), by_hand, rtol=1e-3)


def test_no_edit_leaks_where_its_own_subject_is_named(cache: Any):
    """Of neighbours that are edited themselves, thresholds are set on all edits but theirs."""
    scope = two_keys(STAGES, heads=2, width=4, subject=8, relation=8, hidden=8)
    phi = scope.init(jax.random.key(1), D)
    asked = ask(scope, phi, cache[0][:2], cache[2].states, cache[0][2:4])
    silent = np.isneginf(asked.near.subject)
    assert asked.near.subject.shape == (8, 4) and asked.role.tolist() == [ASKED, NEAR, OWN, FAR] * 2
    for text, (record, role) in enumerate(zip(asked.record, asked.role, strict=True)):
        named = {NEAR: [record + 1], FAR: [record + 2]}.get(role, [])
        assert np.flatnonzero(silent[text]).tolist() == named


def test_what_is_asked_is_learnt_from_prompts_alone(cache: Any):
    """Of records that it did not learn from: a rephrase asks for what the prompt does, another
    relation does not; what tells subjects apart is as it was."""
    scope = two_keys(STAGES, heads=2, width=32, subject=64, relation=16, hidden=32)
    begun = standardised(scope.init(jax.random.key(0), D), cache[2]._rows[:, D:].reshape(-1, 2, D))
    corpus = told((cache[0][:200], *cache[1:]))
    phi = train_relation(scope, jax.tree.map(jnp.copy, begun), prompt_batches(corpus, 0), 60)
    assert_equal(phi["kernels"]["subject"], begun["kernels"]["subject"])
    asked = ask(scope, phi, cache[0][200:], cache[2].states)
    relation = asked.near.relation[np.arange(len(asked.record)), asked.record]
    assert np.mean(relation[asked.role == ASKED] > 0) >= 0.9
    assert np.mean(relation[asked.role == OWN] < 0) >= 0.9


def test_it_learns_to_say_and(cache: Any):
    """Of subjects it never saw: another phrasing fires, a neighbour and another relation do not."""
    records, running, kept = cache
    scope = two_keys(STAGES, heads=2, width=32, subject=64, relation=16, hidden=32)
    phi = standardised(scope.init(jax.random.key(0), D), kept._rows[:, D:].reshape(-1, 2, D))
    batches = scope_batches(told(cache), batch=40, seed=0, longest=8)
    said: list[int] = []
    subjects = subjects_of(records)
    phi = train_scope(scope, phi, batches, 140, subjects, lambda step, _: said.append(step))
    assert said == list(range(20, 141, 20))

    def keys(subject: int, relation: int, answer: int) -> Keys:
        tokens = text(subject, relation, answer).tokens
        seen = states(tokens)[None, :, D:].reshape(1, -1, 2, D)
        return Keys(*(x[0, 2] for x in scope.keys(phi, jnp.asarray(seen))))

    new = range(400, 420)
    held = jax.tree.map(lambda *x: jnp.stack(x), *(keys(s, s % RELATIONS, 0) for s in new))
    used = jnp.ones(len(new), bool)

    def fired(move: int, turn: int) -> np.ndarray:
        asked = (keys(s + move, (s + turn) % RELATIONS, 3) for s in new)
        near = scope.near(phi, jax.tree.map(lambda *x: jnp.stack(x), *asked), held)
        return np.asarray(fires(near, used))

    assert np.mean(fired(0, 0) == np.arange(20)) >= 0.9
    assert np.mean(fired(100, 0) == NONE) >= 0.8 and np.mean(fired(0, 1) == NONE) >= 0.8
