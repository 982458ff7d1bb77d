"""Words that turn a sentence around, and words that do not: what the guards of the near-duplicate tier go by.

English first, as that is what was measured; negators of other languages in Latin script are cheap to add and only ever
refuse. Everything is casefolded.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEGATORS = _words(
    # English. Contractions are expanded before, so "can't" and "cant" arrive here as "not".
    "no not never none nobody nothing nowhere neither nor without lacks lack lacking lacked absent absence fail "
    "fails failed failing failure refuse refuses refused deny denies denied avoid avoids avoided avoiding prevent "
    "prevents prevented preventing stop stops stopped stopping cease ceases except excluding excludes exclude "
    "excluded unless hardly barely scarcely rarely seldom cannot minus anti non false wrong instead rather longer "
    "anymore yet still despite although fake former ex almost nearly only nope nah few little zero null void dunno "
    "unable unlikely impossible insufficient insufficiently against but or if whether otherwise else other different "
    "differently opposite contrary reverse reversed unlike versus vs besides apart beyond solely merely exclusively "
    "alone "
    # What there is less of, or none: tax free, dairy free, fat reduced, poorly.
    "free less lesser least low lower lowered reduced reduces reduce reducing decreased minimal poor poorly bad badly "
    "worse worst wrongly incorrect incorrectly weakly partly partial partially temporary temporarily permanent "
    "permanently enough too gross net "
    # What is over, undone or refused: insurance cancelled, a declined payment.
    "cancel cancels canceled cancelled canceling cancelling cancellation end ends ended ending quit undo undone over "
    "remove removes removed removing removal delete deletes deleted reject rejects rejected decline declines declined "
    "dispute disputed revoke revoked lose loses losing lost loss ban bans banned banning block blocks blocked blocking "
    "forbid forbidden prohibited lift lifted broken stolen expired frozen locked closed suspended disabled dead "
    "deceased late used previous previously prior past retired "
    # What is doubted, or not the thing itself
    "doubt doubts doubted doubtful doubtfully suspect alleged allegedly supposed supposedly apparently maybe perhaps "
    "possibly probably presumably might mock dummy artificial imitation counterfeit replica pretend pseudo quasi semi "
    "self sometimes occasionally usually often always "
    # Who may, must and does it to whom: "she hired him", "she was hired by him".
    "must should ought allowed permitted required optional mandatory by "
    # Where to: take and take off, opt out of, give and give up. Question words and "need" were rejected: one more of
    # them turns little around, and on banking77 they would cost a fifth of what is served at a cosine of 0.85 and 5 %.
    "off out away up down back from under before after until till since "
    # Romance
    "nunca jamas jamás nada nadie ningun ningún ninguna ninguno ni sin tampoco pas jamais rien personne aucun "
    "aucune sans ne guère guere mai niente nessuno nessuna senza né nao não nem nenhum nenhuma sem fara fără niciun "
    "nu nici "
    # Germanic
    "nicht nichts nie niemals niemand kein keine keinen keinem keiner keines ohne weder noch niet nooit niets geen "
    "zonder nergens inte aldrig ingen inget inga utan ikke aldri ingenting uden uten ej "
    # Slavic, Baltic, Finno-Ugric, Turkic, Indonesian, Vietnamese, in Latin letters
    "nie nigdy nikt nic bez brak ani není neni nikdy nikdo nic nema nije nikad nista ništa neviens nav niekas nera "
    "nėra ei en et emme ette eivät eivat ilman nem nincs soha semmi nélkül nelkul degil değil yok hic hiç tidak "
    "bukan jangan tanpa belum khong không chua chưa chang chẳng hindi walang huwag "
)

CARDINALS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fourty fifty sixty seventy eighty ninety hundred hundreds thousand "
    "thousands million millions billion billions trillion trillions dozen dozens half halves"
)
"""The word after one of these, or after digits, says what is counted."""


def _romans() -> frozenset[str]:
    tens = ("", "x", "xx", "xxx", "xl", "l", "lx", "lxx", "lxxx", "xc", "c")
    return frozenset(ten + one for ten in tens for one in ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix"))


NUMBER_WORDS = (
    CARDINALS
    # Single letters are names of things: vitamin C, plan B, chapter V. "a" and "i" are words.
    | (_romans() | frozenset("bcdefghjklmnopqrstuvwxyz")) - {"", "i"}
    | _words(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
        "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth fourtieth fiftieth "
        "sixtieth seventieth eightieth ninetieth hundredth thousandth millionth billionth seconds thirds fourths "
        "fifths sixths sevenths eighths ninths tenths twelfths twentieths hundredths thousandths millionths "
        "quarter quarters score scores nil nought naught ones tens teens twenties thirties forties fifties sixties "
        "seventies eighties nineties once twice thrice single singles double doubles doubled triple triples tripled "
        "quadruple quadrupled quintuple couple couples pair pairs trio duo bi tri twofold threefold tenfold "
        "both several many most all every each whole entire per percent percents pct "
        "mg kg km g ml cm mm kb mb gb tb pm ft lb lbs oz mph kph "
        "hourly daily weekly biweekly fortnightly monthly quarterly yearly annually annual biannual nightly "
        "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august "
        "september october november december today tomorrow yesterday tonight "
        "uno dos tres cuatro cinco seis siete ocho nueve diez deux trois quatre cinq sept huit neuf dix zwei drei "
        "vier fünf funf sechs sieben acht neun zehn due tre quattro cinque sei sette otto nove dieci um dois três "
        "sete oito dez "
    )
)

_PAIRS = """
able unable|above below|absent present|accept reject|accept decline|acquire lose|activate deactivate|
active inactive|active passive|add remove|add subtract|admit deny|advance retreat|advantage disadvantage|
affirm deny|after before|afternoon morning|agree disagree|agonist antagonist|alive dead|all none|all some|
allow block|allow deny|allow forbid|allow prevent|allow prohibit|always never|amplify reduce|ancient modern|
answer ask|answer question|appear disappear|approve reject|approve deny|arrive depart|arrive leave|
arrival departure|ascend descend|asleep awake|attach detach|attack defend|attract repel|aunt uncle|backward forward|
bad good|begin end|begin finish|beginning end|benefit harm|benign malignant|best worst|better worse|big small|
big little|birth death|bitter sweet|black white|blunt sharp|boost lower|borrow lend|bottom top|bound free|boy girl|
boys girls|break fix|break repair|bride groom|bright dark|bright dim|broad narrow|brother sister|build destroy|
busy idle|buy sell|bought sold|buyer seller|calm angry|cancel confirm|cancel keep|cancel renew|cause prevent|
cause effect|cheap expensive|child adult|children adults|chronic acute|clean dirty|clear cloudy|
clockwise counterclockwise|close open|closed open|closes opens|closing opening|cold hot|cold warm|cool warm|come go|
common rare|complex simple|compress expand|condemn praise|connect disconnect|conceal reveal|create destroy|
create delete|credit debit|cruel kind|cry laugh|dad mom|damage repair|danger safety|dangerous safe|dark light|
daughter son|dawn dusk|day night|dead living|debtor creditor|deep shallow|defeat victory|demand supply|
deposit withdraw|deposit withdrawal|deposits withdrawals|destroy preserve|deteriorate improve|die live|
difficult easy|disable enable|disabled enabled|dominant recessive|domestic foreign|domestic international|down up|
drunk sober|dry wet|dull bright|early late|earlier later|earliest latest|earn spend|east west|eastern western|
easy hard|employ dismiss|employer employee|empty full|encode decode|encourage discourage|encrypt decrypt|end start|
enemy friend|enemy ally|enjoy hate|enter exit|enter leave|entrance exit|even odd|everyone nobody|everything nothing|
evil good|exact approximate|expand shrink|expand contract|explicit implicit|export import|exterior interior|
external internal|extrovert introvert|fact fiction|fail pass|fail succeed|failure success|fall rise|fall spring|
false true|falling rising|famous unknown|far near|farthest nearest|fast slow|faster slower|fastest slowest|fat thin|
father mother|fathers mothers|female male|females males|few many|fewer more|find lose|finish start|first last|
float sink|follow lead|foolish wise|forget remember|forgive blame|fragile sturdy|free paid|free busy|freeze melt|
freeze unfreeze|fresh stale|friend foe|front back|frequent rare|frequently rarely|future past|gain lose|gain loss|
gather scatter|generous stingy|gentle rough|give take|give receive|glad sad|grant refuse|grow shrink|guest host|
guilty innocent|happy sad|hard soft|hate love|he she|head tail|healthy sick|heat cold|heaven hell|heavy light|
height depth|help hinder|her his|herself himself|hide show|hide reveal|high low|higher lower|highest lowest|him her|
hire fire|hired fired|hit miss|honest dishonest|horizontal vertical|hungry full|husband wife|ignore notice|
illegal legal|improve worsen|improves worsens|in out|include exclude|income expense|incoming outgoing|
increase decrease|increase reduce|increased decreased|increased reduced|increases decreases|increases reduces|
increasing decreasing|indoor outdoor|indoors outdoors|inferior superior|inflate deflate|inhale exhale|
inhibit activate|inhibit promote|inhibits activates|inhibits promotes|inhibit stimulate|inhibitor activator|
inner outer|input output|inside outside|insert delete|install uninstall|join leave|join separate|junior senior|
king queen|knowledge ignorance|land sea|large small|larger smaller|largest smallest|last next|lazy diligent|
least most|left right|less more|let forbid|lie truth|like dislike|liquid solid|liquid gas|little much|load unload|
local remote|local global|lock unlock|locked unlocked|login logout|long short|longer shorter|longest shortest|
loose tight|lose win|losing winning|loser winner|lost found|lost won|loss profit|loud quiet|low tall|lucky unlucky|
major minor|majority minority|man woman|men women|married single|mature immature|max min|maximum minimum|
maximize minimize|maximise minimise|merge split|minus plus|mute unmute|natural artificial|near distant|
negative positive|nephew niece|new old|newer older|newest oldest|noisy quiet|north south|northern southern|
now later|now then|obey disobey|off on|offline online|often rarely|old young|older younger|oldest youngest|
optimist pessimist|optional mandatory|optional required|over under|parent child|parents children|pause resume|
peace war|permanent temporary|permit forbid|permit prohibit|plaintiff defendant|pleasure pain|poor rich|
powerful weak|predator prey|pregnant barren|private public|problem solution|promote demote|promotes prevents|
prove disprove|pull push|pure impure|raise lower|raises lowers|raise reduce|rapid slow|raw cooked|real fake|
receive send|received sent|receiver sender|recipient sender|refund charge|refunded charged|relax tense|
release capture|retail wholesale|reward punish|reward penalty|right wrong|risk safety|risky safe|rough smooth|
rural urban|same different|same opposite|save spend|save delete|save waste|sell purchase|separate together|
set unset|shut open|similar different|simple complicated|singular plural|sit stand|slim fat|smart stupid|soon late|
sooner later|sour sweet|spouse single|stay leave|stay go|strength weakness|strengthen weaken|strong weak|
stronger weaker|student teacher|subscribe unsubscribe|suitable unsuitable|summer winter|sunrise sunset|sunny cloudy|
sunny rainy|suppress enhance|suppress induce|suppresses induces|enhance impair|enhances impairs|enhance reduce|
sweet salty|synthesis degradation|tall short|taller shorter|tame wild|tenant landlord|thick thin|throw catch|
tie untie|together apart|transparent opaque|transmit receive|trust distrust|ugly beautiful|ugly pretty|
understand misunderstand|upgrade downgrade|upload download|upper lower|upstairs downstairs|upstream downstream|
useful useless|vacant occupied|vague precise|valley mountain|victim criminal|villain hero|virtue vice|
visible invisible|wake sleep|wealth poverty|wide narrow|wider narrower|with without|yes no|zenith nadir|
upregulate downregulate|upregulates downregulates|upregulated downregulated|upregulation downregulation|
activation inhibition|activated inhibited|elevated reduced|elevates lowers|gains losses|stimulates suppresses|
stimulate suppress|sensitive resistant|sensitivity resistance|susceptible resistant|survival death|
survival mortality|protective harmful|protects harms|beneficial harmful|hyper hypo|deficiency excess|
surplus deficit|shortage surplus|block unblock|blocked unblocked|freeze release|loan deposit|contactless chip|
virtual physical|pending completed|verified unverified|to from|until since|ahead behind|against for|towards away|
toward away|onto off|into out|ascending descending|
when where|when why|where why|who when|who where|who why|how why|how where|how who|
"""


def _opposites() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for pair in "".join(_PAIRS.split("\n")).split("|"):
        if pair:
            one, other = pair.split(" ")
            found.setdefault(one, set()).add(other)
            found.setdefault(other, set()).add(one)
    return {word: frozenset(others) for word, others in found.items()}


OPPOSITES = _opposites()
"""Word -> its antonyms, in both directions."""

# Put before a word, they turn it around: legal and illegal, agree and disagree.
REVERSING_PREFIXES = (
    "un", "in", "im", "il", "ir", "dis", "non", "mis", "mal", "de", "anti", "counter", "contra", "a", "an", "ab", "dys",
    "under", "over", "out", "off", "pseudo", "ex", "re", "pre", "post", "semi", "sub",
)  # fmt: skip
# Two that turn each other around: inbound and outbound, hypertension and hypotension.
OPPOSED_PREFIXES = (
    ("in", "out"), ("in", "ex"), ("im", "ex"), ("in", "de"), ("in", "ef"), ("a", "de"), ("up", "down"),
    ("over", "under"), ("pre", "post"), ("ante", "post"), ("hyper", "hypo"), ("macro", "micro"), ("maxi", "mini"),
    ("pro", "anti"), ("pro", "con"), ("inter", "intra"), ("sub", "super"), ("en", "dis"), ("homo", "hetero"),
    ("mono", "poly"),
    ("uni", "multi"), ("bene", "male"), ("endo", "exo"), ("ex", "im"), ("fore", "after"), ("intro", "extro"),
    ("eu", "dys"), ("tachy", "brady"), ("as", "des"), ("oligo", "poly"), ("con", "dis"),
)  # fmt: skip
OPPOSED_SUFFIXES = (
    ("less", "ful"),
    ("er", "ee"),
    ("phobic", "philic"),
    ("phobia", "philia"),
    ("agonist", "antagonist"),
)
REVERSING_SUFFIXES = ("less", "free", "proof")

CONTRACTIONS = {
    "can't": ("can", "not"), "won't": ("will", "not"), "shan't": ("shall", "not"), "cannot": ("can", "not"),
    "ain't": ("not",), "aint": ("not",), "cant": ("can", "not"), "wont": ("will", "not"), "dont": ("do", "not"),
    "doesnt": ("does", "not"), "didnt": ("did", "not"), "isnt": ("is", "not"), "arent": ("are", "not"),
    "wasnt": ("was", "not"), "werent": ("were", "not"), "hasnt": ("has", "not"), "havent": ("have", "not"),
    "hadnt": ("had", "not"), "couldnt": ("could", "not"), "wouldnt": ("would", "not"), "shouldnt": ("should", "not"),
    "mustnt": ("must", "not"), "neednt": ("need", "not"), "shant": ("shall", "not"),
    "mightnt": ("might", "not"), "darent": ("dare", "not"), "oughtnt": ("ought", "not"),
    "i'm": ("i", "am"), "im": ("i", "am"), "whats": ("what", "is"), "thats": ("that", "is"), "hows": ("how", "is"),
    "wheres": ("where", "is"), "let's": ("let", "us"), "ive": ("i", "have"), "youre": ("you", "are"),
}  # fmt: skip

SHORTENED = {"s": "is", "d": "would", "m": "am", "ve": "have", "ll": "will", "re": "are"}
"""What stands after an apostrophe. A possessive becomes "is" as well: it only has to become the same each time."""

FILLERS = _words("a an the please kindly hi hello hey dear thanks thank ok okay um uh oh")
"""A text may have these and another not, where the guards are strict."""

HARMLESS = FILLERS | _words(
    "well so is are am was were be been being do does did can could would will shall has have had of that it there "
    "really actually basically simply exactly currently"
)
"""Where they are not strict, these as well. Tenses are among them: who asks what was open mostly asks what is. No
preposition is here, no pronoun, no quantity, no verb that grants or obliges: each of those can turn a text around."""
