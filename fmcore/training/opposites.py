"""Words of direction in business news: which way a sentence points, and the same sentence pointing the other way.

Two sentences that differ in "rose" and "fell" alone say the opposite and share nearly every word; an encoder that was taught on topics
puts them in one place. The objective "polarity" (sentence_adapt.py) learns from such pairs. A word list, English, written before a row was
looked at, then shortened after a look at some 40 training sentences and at counts by training label; no held-out row was read. No
classifier reads it, and nothing here is learnt: what it brings is knowledge of words, not of the data.
"""

from __future__ import annotations

import re

_MOVES = """
rose fell, rise fall, rises falls, rising falling, risen fallen, increase decrease, increased decreased, increases decreases,
increasing decreasing, grew shrank, grow shrink, growing shrinking, growth decline, up down, upward downward, higher lower,
highest lowest, improved worsened, improve worsen, improves worsens, improving worsening, improvement deterioration,
strengthened weakened, strengthen weaken, strengthening weakening, strong weak, stronger weaker, gain drop, gains drops, gained lost,
jumped plunged, jump plunge, jumps plunges, surged slumped, surge slump, soared tumbled, climbed dropped, climb drop, advanced slipped,
raised cut, raises cuts, raise cut, expanded reduced, expand reduce, expansion reduction, recovered deteriorated,
recovery deterioration, rebound slump, accelerated slowed, boosted hurt, boost hurt, doubled halved, rally crash, rallied crashed,
rose declined, rises declines, rising declining, widened narrowed
"""
_VALUES = """
profitable unprofitable, positive negative, positively negatively, better worse, best worst, good bad, favourable unfavourable,
favorable unfavorable, beat missed, beats misses, exceeded missed, win lose, wins loses, won lost, upgraded downgraded,
upgrade downgrade, upgrades downgrades, hired dismissed, success failure, successful unsuccessful, successfully unsuccessfully,
bullish bearish, optimistic pessimistic
"""
UNWELCOME = {"loss", "losses", "cost", "costs", "expense", "expenses", "debt", "debts", "deficit", "unemployment", "impairment", "layoffs"}
"""What is good news when it falls."""
_WORD = re.compile(r"[A-Za-z]+")


def _table(pairs: str) -> tuple[dict[str, str], dict[str, int]]:
    """(word -> its opposite, word -> 1 for the better one of a pair and -1 for the other); of several pairs the first counts."""
    opposite: dict[str, str] = {}
    sign: dict[str, int] = {}
    for pair in pairs.split(","):
        better, worse = pair.split()
        opposite.setdefault(better, worse)
        opposite.setdefault(worse, better)
        sign.setdefault(better, 1)
        sign.setdefault(worse, -1)
    return opposite, sign


MOVES, _MOVE_SIGNS = _table(_MOVES)
VALUES, _VALUE_SIGNS = _table(_VALUES)


def direction(text: str) -> int | None:
    """1 where more words point up than down, -1 for the other way, 0 without any word of direction, None where they balance.

    Moves of something unwelcome ("the loss widened") point the other way. Words of value count only where nothing moves.
    """
    words = [word.group().lower() for word in _WORD.finditer(text)]
    moving = [_MOVE_SIGNS[word] for word in words if word in MOVES]
    signs = moving or [_VALUE_SIGNS[word] for word in words if word in VALUES]
    if not signs:
        return 0
    total = sum(signs)
    if total == 0:
        return None
    against = bool(moving) and any(word in UNWELCOME for word in words)
    return -1 if (total > 0) == against else 1


def turned(text: str) -> str:
    """The text with every word of direction turned round, of movement where there is one, else of value; itself without any."""
    table = MOVES if any(word.group().lower() in MOVES for word in _WORD.finditer(text)) else VALUES
    return _WORD.sub(lambda word: _cased(table.get(word.group().lower(), word.group()), word.group()), text)


def _cased(word: str, like: str) -> str:
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[0].isupper() else word
