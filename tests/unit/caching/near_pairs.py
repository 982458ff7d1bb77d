"""Made pairs of texts that stand near each other for any cheap key and mean something else. Seeded, nothing is read."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

SENTENCES = (
    "how do i {} my card",
    "please {} the payment that was made last week",
    "can you {} my account for me",
    "i would like to {} the subscription of my team",
    "is it possible to {} this order after the deadline",
    "what happens when i {} the contract with my bank",
    "we have to {} the valve before the pump runs",
    "should the nurse {} the dose for this patient",
)
NUMBERED = (
    "transfer {} dollars to my savings account",
    "what is the limit for {} withdrawals in a week",
    "remind me to call the doctor in {} minutes",
    "patients received {} mg of aspirin",
    "my order number is {}",
    "flights under ${} to the coast",
    "convert {} miles to kilometres",
    "python 3.{} release notes",
)
PLAIN = (
    ("the card", "works abroad", "work abroad"),
    ("my salary", "arrived this morning", "arrive this morning"),
    ("the treatment", "reduces mortality in adults", "reduce mortality in adults"),
    ("this phone", "supports wireless charging", "support wireless charging"),
    ("the landlord", "accepts pets in the flat", "accept pets in the flat"),
    ("the parcel", "needs a signature", "need a signature"),
)
# On no list of the guards, most of them: what is refused must not depend on a list.
EXCHANGED = (
    "freeze thaw|block whitelist|raise drop|open shut|cancel reinstate|lock release|start halt|approve veto|"
    "enable kill|extend curtail|strengthen dilute|accept spurn|buy flog|load discharge|attach sever|mount dismount|"
    "tighten slacken|inflate puncture|keep discard|hire sack|join quit|praise scold|admit expel|promote axe|build raze|"
    "win forfeit|hide flaunt|welcome shun|speed brake"
)
REVERSED = (
    "lock unlock|activate deactivate|connect disconnect|install uninstall|approve disapprove|load unload|block unblock|"
    "subscribe unsubscribe|allow disallow|understand misunderstand|register deregister|freeze unfreeze|"
    "authorise deauthorise|mount unmount|enable disable|link unlink|verify unverify|encrypt decrypt"
)
DESCRIBED = (
    "possible impossible|legal illegal|regular irregular|complete incomplete|useful useless|harmful harmless|"
    "inbound outbound|upstream downstream|internal external|maximum minimum|careful careless|"
    "hot cold|early late|public private|domestic foreign|senior junior|prepaid postpaid|visible invisible"
)
# A word more, in the second text; each turns the first around.
INSERTED = (
    ("is this yogurt dairy", "is this yogurt dairy free"),
    ("sugar drinks for children", "sugar free drinks for children"),
    ("can i get a tax refund", "can i get a tax free refund"),
    ("i want insurance", "i want insurance cancelled"),
    ("a list of my payments", "a list of my declined payments"),
    ("what is the fee on my transfer", "what is the fee on my rejected transfer"),
    ("it is true", "i doubt it is true"),
    ("how to talk to people", "how to talk less to people"),
    ("does it work", "does it work poorly"),
    ("fat food for dogs", "fat reduced food for dogs"),
    ("how do i get my card", "how do i get off my card"),
    ("send me emails about offers", "opt me out of emails about offers"),
    ("take the plane to rome", "take off the plane to rome"),
    ("he lost the case", "he almost lost the case"),
    ("i can eat nuts", "i can hardly eat nuts"),
    ("is smoking allowed here", "is smoking except here allowed"),
    ("it is for members", "it is only for members"),
    ("a leather sofa", "a fake leather sofa"),
    ("the president of the club", "the former president of the club"),
    ("my wife wants a card", "my ex wife wants a card"),
    ("the treatment cured patients", "the treatment partially cured patients"),
    ("block my card", "block my card temporarily"),
    ("employed people pay tax", "self employed people pay tax"),
    ("the company acquired google", "the company was acquired by google"),
    ("cards are accepted", "other cards are accepted"),
    ("a few people came", "few people came"),
    ("the thief was convicted", "the alleged thief was convicted"),
    ("is it warm for a bath", "is it too warm for a bath"),
    ("you pay the fee", "you must pay the fee"),
    ("the shop delivers food", "the shop delivers food or not"),
    ("vitamin for children", "vitamin d for children"),
    ("when is the bank open on monday", "where is it the bank is open on a monday"),
)
# {} is the unit, twice; the frames after the first change more than that.
MEASURED = (
    ("the wall is 8{} tall and 20{} long", "the wall is 8{} tall and 20{} long"),
    ("a board of 6 {} by 4 {}", "please, a board that is of 6 {} by 4 {}"),
    ("i have waited 5{} for it and 3{} more", "i had been waiting 5{} for this and 3{} more there"),
)
UNITS = (
    ("'", '"'), ("’", "”"), ("′", "″"), ("'", "''"), ("", "'"), ("", '"'), ("", "m"), ("", "s"), ("", "d"), ("", "k"),
    ("m", "mm"), ("m", "k"), ("", "%"), (" ft", " in"), (" days", " weeks"), (" mg", " µg"), ("°", "'"), (" am", ""),
)  # fmt: skip
NUMERALS = (
    ("what is on the {} floor", "what is there on floor {}"),
    ("volume {} of the series", "the {} volume of this series is"),
)
CARDINALS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion trillion"
)
ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth "
    "ninetieth hundredth thousandth millionth"
)
OTHER_NUMERALS = (
    "ii iii iv v vi vii viii ix x xi xii xiii xiv xv xvi xix xx xxi xxix xl xlv l lix xc xcix c|"
    "half quarter halves quarters thirds|once twice thrice|dozen dozens score hundreds thousands|"
    "daily weekly monthly yearly|single double triple quadruple|twenties thirties sixties"
)
NEGATIONS = ("{} not {}", "{} never {}", "{} no longer {}", "{} hardly {}")


def pairs(text: str) -> list[tuple[str, str]]:
    return [(one, other) for one, other in (pair.split() for pair in text.split("|"))]


def changed_digits(rng: np.random.Generator) -> list[tuple[str, str]]:
    """A digit more, less or another; a point; a unit's sign; a numeral for a numeral."""
    found = []
    for sentence in NUMBERED:
        for _ in range(12):
            number = str(rng.integers(10, 99_999))
            place = int(rng.integers(len(number)))
            digit = str((int(number[place]) + int(rng.integers(1, 10))) % 10)
            other = (
                number[:place] + digit + number[place + 1 :],
                number + "0",
                number[:place] + "." + number[place:],
                number[:-1],
                "-" + number,
            )[int(rng.integers(5))]
            found.append((sentence.format(number), sentence.format(other)))
        found += [
            (sentence.format(one), sentence.format(other)) for one, other in pairs("two three|one ten|half double")
        ]
    return [(one, other) for one, other in found if one != other]


def negations() -> list[tuple[str, str]]:
    """Not, never, no longer, n't with and without an apostrophe, without, and other languages'."""
    found = []
    for subject, says, bare in PLAIN:
        found += [(f"{subject} {says}", form.format(subject, says)) for form in NEGATIONS]
        for helper in ("does", "will", "would", "could", "did"):
            denied = "won't" if helper == "will" else f"{helper}n't"
            found.append((f"{subject} {helper} {bare}", f"{subject} {denied} {bare}"))
            found.append((f"{subject} {helper} {bare}", f"{subject} {denied.replace(chr(39), '')} {bare}"))
            found.append((f"why {helper} {subject} {bare}", f"why {helper} not {subject} {bare}"))
    found += [
        ("transfer with a fee", "transfer without a fee"),
        ("all cards except debit", "all cards debit"),
        ("flights that stop in rome", "flights that do not stop in rome"),
        ("la tarjeta funciona", "la tarjeta no funciona"),
        ("la carte marche", "la carte ne marche pas"),
        ("die karte geht", "die karte geht nicht"),
        ("ich habe eine karte", "ich habe keine karte"),
        ("карта работает", "карта не работает"),
        ("カードは使えます", "カードは使えません"),
        ("卡可以用", "卡不可以用"),
        ("a non-refundable ticket", "a refundable ticket"),
        ("if x", "if !x"),
    ]
    return found


def antonyms() -> list[tuple[str, str]]:
    """One word for another, from no list of the guards; a prefix or suffix that reverses; adjectives."""
    acts = pairs(EXCHANGED) + pairs(REVERSED)
    found = [
        (SENTENCES[place % len(SENTENCES)].format(one), SENTENCES[place % len(SENTENCES)].format(other))
        for place, (one, other) in enumerate(acts + acts[::-1] + acts)
    ]
    frames = ("is this {} for a family", "a list of {} cases", "what does {} mean here")
    return found + [(frame.format(one), frame.format(other)) for frame in frames for one, other in pairs(DESCRIBED)]


def swapped() -> list[tuple[str, str]]:
    """The same words with the parts changed."""
    places = pairs("london paris|euros dollars|savings checking|home work|berlin rome")
    frames = ("how do i get from {} to {}", "convert {} to {}", "is {} larger than {}", "move it from {} into {}")
    return [(frame.format(one, other), frame.format(other, one)) for frame in frames for one, other in places]


def insertions() -> list[tuple[str, str]]:
    """A word more, alone and with a harmless change."""
    return [*INSERTED, *((one, f"please, {other} there?") for one, other in INSERTED)]


def units() -> list[tuple[str, str]]:
    """Another unit beside the same number, and the units of two numbers exchanged."""
    found = []
    for one, other in UNITS:
        for left, right in MEASURED:
            found.append((left.format(one, one), right.format(other, other)))
            found.append((left.format(one, other), right.format(other, one)))
    return found


def numerals() -> list[tuple[str, str]]:
    """A number in words beside the next, with another change, so that it is no plain exchange."""
    found = []
    for words in (CARDINALS, ORDINALS, *OTHER_NUMERALS.split("|")):
        row = words.split()
        for one, other in pairwise(row):
            found += [(left.format(one), right.format(other)) for left, right in NUMERALS]
    return found


def harmful(seed: int = 0) -> list[tuple[str, str]]:
    """All of them: none may answer the other."""
    made = changed_digits(np.random.default_rng(seed)) + negations() + antonyms() + swapped()
    return made + insertions() + units() + numerals()


def harmless() -> list[tuple[str, str]]:
    """Pairs that answer each other, however strict one is."""
    return [
        ("how do i lock my card", "how do i lock my card?"),
        ("how do i lock my card", "hello, please, how do i lock my card"),
        ("What's the weather in rome", "what is the weather in rome"),
        ("HOW DO I LOCK MY CARD", "How do I lock my card"),
        ("why can't i log in", "why can not i log in"),
        ("a wall of 8' and 20\"", "the wall of 8' and 20\", please"),
        ("my 'new' card is \"blocked\"", "my new card is blocked"),
        ("i'm at john's, and we've 5m", "i am at john's, and we have 5 m"),
    ]


def loosely_harmless() -> list[tuple[str, str]]:
    """Pairs that may well answer each other, where one is not strict."""
    return [
        ("how do i lock my card", "please, how can i lock my card"),
        ("where is the nearest cash machine", "where are the nearest cash machines"),
        ("i am waiting for my card", "i was waiting for my card"),
    ]
