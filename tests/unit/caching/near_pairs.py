"""Made pairs of texts that stand near each other for any cheap key and mean something else. Seeded, nothing is read."""

from __future__ import annotations

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


def harmful(seed: int = 0) -> list[tuple[str, str]]:
    """All of them: none may answer the other."""
    return changed_digits(np.random.default_rng(seed)) + negations() + antonyms() + swapped()


def harmless() -> list[tuple[str, str]]:
    """Pairs that may well answer each other."""
    return [
        ("how do i lock my card", "how do i lock my card?"),
        ("how do i lock my card", "please, how can i lock my card"),
        ("What's the weather in rome", "what is the weather in rome"),
        ("where is the nearest cash machine", "where are the nearest cash machines"),
        ("HOW DO I LOCK MY CARD", "How do I lock my card"),
        ("why can't i log in", "why can not i log in"),
        ("i am waiting for my card", "i was waiting for my card"),
    ]
