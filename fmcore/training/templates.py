"""Templates that rebuild a sentence: clause order, active or passive, verb or noun, form of a question. No chance, nothing learnt.

A template is a function of one sentence and gives the rebuilt one, or None where it does not fit. What says which way something goes
keeps its direction ("rose 5 %" -> "a rise of 5 %"); augment.py checks that with the guard list and drops whatever lost something.
"""

from __future__ import annotations

import re

from fmcore.training import wordings

_SENTENCES = re.compile(r"(?<=[.?!。？！])\s+(?=[A-Z\"'(])|(?<=[。？！])")
_AMOUNT = r"(?:by )?(?P<amount>[-+]?\d[\d.,]*(?: ?%| percent| per cent| percentage points))"
_MOVES = {
    "rose": "a rise", "rises": "a rise", "increased": "an increase", "grew": "growth", "climbed": "a climb", "jumped": "a jump",
    "surged": "a surge", "gained": "a gain", "improved": "an improvement", "fell": "a fall", "falls": "a fall", "decreased": "a decrease",
    "declined": "a decline", "dropped": "a drop", "slipped": "a slip", "plunged": "a plunge", "slid": "a slide",
}  # fmt: skip
_MOVED = re.compile(rf"^(?P<what>[^,;:.]{{3,70}}?) (?P<verb>{'|'.join(_MOVES)}) {_AMOUNT}(?P<rest>\s.*|[.,].*|)$")
_DEEDS = (
    "acquired|bought|sold|signed|launched|published|approved|appointed|supplied|developed|built|won|opened|closed|cut|raised|halted|"
    "completed|rejected"
)
_ACTIVE = re.compile(
    rf"^(?P<who>[^,;:.]{{3,50}}?) (?P<verb>{_DEEDS}) (?P<what>(?:a|an|the|its|their|all|new) [^,;:.]{{3,60}}?)(?P<end> ?\.?)$"
)
_NTH = r"(?:first|second|third|fourth) (?:half|quarter)"
_LEADS = "In|During|For|At|As of|According to|Following|With"
_LEAD = re.compile(rf"^(?P<lead>(?:{_LEADS}) [^,]{{2,70}}?) ?, (?P<rest>[^?]{{10,}}?)(?P<end> ?\.?)$")
_WHEN = rf"in (?:the )?(?:{_NTH}(?: of)? )?(?:\d{{4}}|the {_NTH})"
_TAIL = re.compile(rf"^(?P<rest>[^,?]{{10,}}?) ?,? (?P<tail>{_WHEN}|according to [^,.]{{3,60}}?)(?P<end> ?\.?)$")
_SAID = re.compile(
    r"^(?P<who>[^,;:.]{3,60}?) (?P<verb>said|announced|reported|stated|says)(?: today)? (?P<that>that )?(?P<what>[^?]{10,}?)(?P<end> ?\.?)$"
)
_MONEY = r"(?:(?:EUR|USD|GBP|SEK|\$|€) ?)?[-+]?\d[\d.,]*(?: (?:mn|bn|million|billion|%|percent))?(?: euros?)?"
_FROM_TO = re.compile(rf"\bto (?P<to>{_MONEY})(?: ?,?) from (?P<from>{_MONEY})(?![\d\w])")
_HELPERS = frozenset(
    ("not", "have", "has", "had", "was", "were", "is", "are", "be", "been", "being", "will", "would", "could", "may", "might", "can", "to",
     "that", "which", "who")
)  # fmt: skip
_COMPARING = frozenset(("compared", "comparison", "from", "versus", "vs", "against", "than", "while", "whereas"))
"""With two periods in a sentence, a time that is moved would belong to the other one."""
_JOINED = frozenset(("it", "they", "and", "or", "of"))
_OURS = "(?:[a-z-]+ ){0,2}(?:payment|transfer|card|account|top-up|top up|withdrawal|balance|check|money|refund|transaction|order)"
_ASKED = (
    (r"how (?:do|can|could) i (?P<x>[^?]+)\?*", "I would like to {x}. How does that work?"),
    (r"can i (?P<x>[^?]+)\?*", "Is it possible for me to {x}?"),
    (r"is it possible to (?P<x>[^?]+)\?*", "Can I {x}?"),
    (r"i (?:want|need|would like) to (?P<x>[^?.,]+)[.]*", "Please help me to {x}."),
    (r"what is (?P<x>[^?]+)\?*", "Could you tell me what {x} is?"),
    (r"what are (?P<x>[^?]+)\?*", "Could you tell me what {x} are?"),
    (r"is there (?P<x>[^?]+)\?*", "I would like to know whether there is {x}."),
    (r"are there (?P<x>[^?]+)\?*", "I would like to know whether there are {x}."),
    (rf"why (?P<be>is|was|has) (?P<who>my|the|this) (?P<x>{_OURS}) (?P<y>[^?]+)\?*", "{who} {x} {be} {y}. Why?"),
    (r"please (?P<x>[^?.,]+)[.]*", "Could you {x}, please?"),
    (r"(?:could|can) you (?P<x>[^?.,]+)\?*", "Please {x}."),
    (r"how long (?P<x>[^?]+)\?*", "Please tell me about the time: how long {x}?"),
    (r"where (?:do|can) i (?P<x>[^?]+)\?*", "Is there a place where I can {x}?"),
    (r"(?:请问)?(?:怎么|如何)(?P<x>[^？?]{2,})[？?]*", "我想{x}，请问该怎么做？"),
    (r"我(?:想要|想|要)(?P<x>[^，。？?]{2,})[。]*", "请帮我{x}。"),
)
_QUESTIONS = tuple((re.compile(f"^{pattern}$", re.IGNORECASE), made) for pattern, made in _ASKED)
_CHINESE_MOVE = re.compile(
    r"^(?P<what>[^，。；]{2,20}?)(?P<verb>上涨|下跌|上升|下降|增长|下滑|减少)了?(?P<amount>\d[\d.]*[%％])(?P<end>。?)$"
)
_NO_NAMES = frozenset(
    ("the", "its", "it", "a", "an", "this", "these", "those", "their", "they", "we", "our", "he", "she", "there", "in", "at", "for",
     "during", "according", "following", "with",
     "sales", "net", "operating", "profit", "revenue", "turnover", "earnings", "shares", "production",
     "orders", "costs", "demand", "exports", "imports", "pretax", "gross", "total", "my")
)  # fmt: skip
"""First words of a sentence that begin with a small letter further on."""


def rebuilt(text: str) -> list[str]:
    """Every text that comes of rebuilding one of its sentences by one template that fits it; none where none fits."""
    sentences = _SENTENCES.split(text.strip())
    made = ((i, template(sentence)) for i, sentence in enumerate(sentences) for template in _TEMPLATES)
    space = "" if re.search(r"[。？！]", text) else " "
    whole = (space.join([*sentences[:i], new, *sentences[i + 1 :]]) for i, new in made if new is not None)
    return [new for new in whole if new != text]


def _moved(sentence: str) -> str | None:
    """ "Net sales rose 5 % to EUR 3 mn" -> "There was a rise of 5 % in net sales to EUR 3 mn"."""
    found = _MOVED.match(sentence)
    if found is None or _has(found["what"], _HELPERS):
        return None
    return f"There was {_MOVES[found['verb']]} of {found['amount']} in {_lower(found['what'])}{found['rest']}"


def _passive(sentence: str) -> str | None:
    """ "X acquired the company ." -> "The company was acquired by X ."."""
    found = _ACTIVE.match(sentence)
    if found is None or _has(found["who"], _HELPERS | _JOINED) or _has(found["what"], _HELPERS):
        return None
    last = found["what"].split()[-1].casefold()
    be = "were" if last.endswith("s") and not last.endswith("ss") else "was"
    return f"{_upper(found['what'])} {be} {found['verb']} by {_lower(found['who'])}{found['end']}"


def _lead_to_tail(sentence: str) -> str | None:
    """ "In 2009 , sales were flat ." -> "Sales were flat in 2009 ."."""
    found = _LEAD.match(sentence)
    return None if found is None or _has(found["rest"], _COMPARING) else f"{_upper(found['rest'])} {_lower(found['lead'])}{found['end']}"


def _tail_to_lead(sentence: str) -> str | None:
    """ "Sales were flat in 2009 ." -> "In 2009, sales were flat ."."""
    found = _TAIL.match(sentence)
    return None if found is None or _has(found["rest"], _COMPARING) else f"{_upper(found['tail'])}, {_lower(found['rest'])}{found['end']}"


def _said(sentence: str) -> str | None:
    """ "X said that sales were flat." -> "Sales were flat, X said."."""
    found = _SAID.match(sentence)
    if found is None or _has(found["who"], _HELPERS) or not (found["that"] or found["verb"] == "says"):
        return None
    return f"{_upper(found['what'])}, {_lower(found['who'])} {found['verb']}{found['end']}"


def _from_to(sentence: str) -> str | None:
    """ "rose to EUR 13.1 mn from EUR 8.7 mn" -> "rose from EUR 8.7 mn to EUR 13.1 mn"."""
    found = _FROM_TO.search(sentence)
    return None if found is None else f"{sentence[: found.start()]}from {found['from']} to {found['to']}{sentence[found.end() :]}"


def _question(sentence: str) -> str | None:
    """A customer's question in another form of asking: the first that fits."""
    for pattern, made in _QUESTIONS:
        if found := pattern.match(sentence.strip()):
            return _upper(made.format(**{name: part.strip() for name, part in found.groupdict().items()}))
    return None


def _chinese_move(sentence: str) -> str | None:
    """ "营收上涨5%。" -> "营收出现了5%的上涨。"."""
    found = _CHINESE_MOVE.match(sentence)
    return None if found is None else f"{found['what']}出现了{found['amount']}的{found['verb']}{found['end']}"


_TEMPLATES = (_moved, _passive, _lead_to_tail, _tail_to_lead, _said, _from_to, _question, _chinese_move)


def _has(part: str, words: frozenset[str]) -> bool:
    return any(word.casefold() in words or wordings.guarded(word) == "not" for word in part.split())


def _lower(part: str) -> str:
    first = part.split(maxsplit=1)[0] if part.split() else ""
    return part[:1].lower() + part[1:] if first.casefold() in _NO_NAMES else part


def _upper(part: str) -> str:
    return part[:1].upper() + part[1:]
