"""What an augmentation may put in a word's place, and what it must leave alone: tables of plain words, written for FM Desk.

Owns the guard list: negations, words and signs that say which way something goes, and numbers. Nothing here is chance, nothing is learnt.
"""

from __future__ import annotations

import functools
import re
from collections import Counter

_GUARDED = """
not: not n't cannot
no: no
none: none nothing nobody nowhere
never: never
without: without
neither: neither
nor: nor
hardly: hardly barely scarcely rarely seldom
fail: fail fails failed failing failure failures
deny: deny denies denied denying
refuse: refuse refuses refused refusing refusal
despite: despite although though but
only: only
if: if unless
up: up upward upwards
down: down downward downwards
above: above over
below: below under
more: more most
less: less least lesser
few: few fewer fewest
high: high higher highest
low: low lower lowest lowered lowers lowering
good: good better best well
bad: bad worse worst badly
strong: strong stronger strongest strongly strengthen strengthened strengthens strengthening
weak: weak weaker weakest weakly weaken weakened weakens weakening weakness
rise: rise rises rose risen rising
fall: fall falls fell fallen falling
increase: increase increases increased increasing
decrease: decrease decreases decreased decreasing
grow: grow grows grew grown growing growth
decline: decline declines declined declining
drop: drop drops dropped dropping
climb: climb climbs climbed climbing
slip: slip slips slipped slipping
jump: jump jumps jumped jumping
plunge: plunge plunges plunged plunging
surge: surge surges surged surging
soar: soar soars soared soaring
slide: slide slides slid sliding
shrink: shrink shrinks shrank shrunk shrinking
gain: gain gains gained gaining
lose: lose loses lost losing loss losses
profit: profit profits profitable profitability
unprofitable: unprofitable
improve: improve improves improved improving improvement improvements
worsen: worsen worsens worsened worsening
expand: expand expands expanded expanding expansion
cut: cut cuts cutting
halt: halt halts halted halting
raise: raise raises raised raising
reduce: reduce reduces reduced reducing reduction reductions
double: double doubles doubled doubling
halve: halve halves halved halving
beat: beat beats beating
miss: miss misses missed missing
win: win wins won winning
layoff: layoff layoffs lay-off lay-offs redundancies redundant
positive: positive positively
negative: negative negatively
success: success successful successfully succeed succeeded
wrong: wrong wrongly incorrect incorrectly
right: right correct correctly
reject: reject rejects rejected rejecting
block: block blocks blocked blocking unblock unblocked
activate: activate activated activating activation
deactivate: deactivate deactivated
cancel: cancel cancels cancelled canceled cancelling cancellation
"""
"""A key, then its words: what says the same way of the same thing, whatever its form ("rose", "a rise")."""
_GUARDED_SIGNS = frozenset("不没沒無无未非勿莫否涨漲跌升降增减減盈亏虧好坏壞强強弱高低")
_NUMBER = re.compile(r"[-+\u2212]?\d+(?:[.,:]\d+)*")
WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")

_SYNONYMS = """
company: firm, business | companies: firms, businesses | firm: company | firms: companies | corporation: company
approximately: about, roughly | roughly: approximately | nearly: almost | almost: nearly
announced: said, stated | said: stated | stated: said | reported: posted | agreement: deal, contract | contract: agreement
employees: staff, workers | staff: employees, personnel | workers: employees | personnel: staff
acquisition: takeover, purchase | acquired: bought, purchased | acquire: buy, purchase | bought: purchased | buy: purchase
revenue: turnover, sales | revenues: sales | turnover: revenue | sales: revenue | operations: activities
currently: at present, presently | presently: currently | additionally: in addition | million: mn | mn: million
products: goods | goods: products | customers: clients | clients: customers | customer: client | client: customer
plant: factory | plants: factories | factory: plant | factories: plants | production: manufacturing | manufacturer: maker
provides: offers, supplies | provide: offer, supply | supplier: vendor | suppliers: vendors | shareholders: stockholders
located: situated, based | headquartered: based | starts: begins | started: began | begins: starts | began: started
obtain: get | obtained: received | expects: anticipates | expect: anticipate | expected: anticipated | intends: plans
completed: finished, concluded | subsidiary: unit | subsidiaries: units | division: unit | country: nation | countries: nations
large: big, sizeable | largest: biggest | biggest: largest | leading: foremost | main: principal | several: a number of
various: different | previously: earlier | earlier: previously | later: afterwards | regarding: concerning | concerning: regarding
equipment: gear | machinery: machines | deliver: supply | delivered: supplied | delivery: shipment | results: figures
corresponding: same | however: nevertheless | therefore: thus | entire: whole | whole: entire | area: region | region: area
cooperation: collaboration | collaboration: cooperation | helps: assists | annual: yearly | yearly: annual | quarterly: three-monthly
money: funds | phone: mobile | app: application | need: require | want: would like | get: obtain | please: kindly | kindly: please
quickly: fast | fee: charge | fees: charges | problem: issue | issue: problem | working: functioning | showing: appearing
tell: inform | explain: clarify | allowed: permitted | permitted: allowed | change: alter | changed: altered | find: locate
hi: hello | hello: hi | thanks: thank you | abroad: overseas | overseas: abroad | trip: journey | received: got
vacation: holiday | holiday: vacation | website: site | somebody: someone | someone: somebody | anybody: anyone | anyone: anybody
mistake: error | error: mistake | possible: feasible | replacement: substitute | purchase: buy | begin: start | start: begin
"""
_CHINESE = """
公司: 企业 | 企业: 公司 | 发布: 公布 | 公布: 发布 | 宣布: 公布 | 表示: 称 | 目前: 现在 | 现在: 目前
如何: 怎么, 怎样 | 怎么: 如何, 怎样 | 怎样: 如何
营业收入: 营收 | 营收: 营业收入 | 大约: 约 | 想要: 想 | 可以: 能 | 手机: 移动电话 | 费用: 收费
客户: 顾客 | 顾客: 客户 | 员工: 职工 | 协议: 合约
收购: 并购 | 首席执行官: CEO | 股东: 持股人 | 原因: 缘由 | 请问: 想问一下 | 帮我: 替我 | 告诉我: 跟我说 | 退款: 退钱 | 购买: 买 | 密码: 口令
生产: 制造 | 工厂: 厂房 | 去年: 前一年 | 今年: 本年 | 产品: 商品 | 商品: 产品 | 合作: 协作 | 错误: 差错 | 旅行: 旅游 | 网站: 网页
"""


def _table(lines: str) -> dict[str, tuple[str, ...]]:
    entries = (entry.partition(":") for line in lines.strip().splitlines() for entry in line.split("|"))
    return {word.strip(): tuple(other.strip() for other in others.split(",")) for word, _, others in entries}


@functools.cache
def synonyms() -> dict[str, tuple[str, ...]]:
    """An English word in lower case -> what may stand for it."""
    return _table(_SYNONYMS)


@functools.cache
def chinese() -> dict[str, tuple[str, ...]]:
    """A Chinese word -> what may stand for it."""
    return _table(_CHINESE)


@functools.cache
def guard_words() -> dict[str, str]:
    """A guarded word in lower case -> what it says: words of one key say the same."""
    entries = (line.partition(":") for line in _GUARDED.strip().splitlines())
    return {word: key for key, _, words in entries for word in words.split()}


def guarded(word: str) -> str | None:
    """What a single word says that must not be lost; None for a word that may be changed."""
    plain = word.casefold().replace("\u2019", "'")
    return "not" if plain.endswith("n't") else guard_words().get(plain)


def guards(text: str) -> Counter[str]:
    """Everything in a text that must survive an augmentation, counted: keys of guarded words and signs, and numbers with their signs."""
    words = (guarded(match.group()) for match in WORD.finditer(text))
    numbers = (match.group().replace("\u2212", "-") for match in _NUMBER.finditer(text))
    return Counter([*(key for key in words if key), *(sign for sign in text if sign in _GUARDED_SIGNS), *numbers])
