"""What is true in the embedded world: tables of plain facts and the sentences that state them and ask for them.

Data only, all in lower case: in this world a capital letter is always the letter of a choice or a fixed prompt's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """Facts of one kind. `{s}` and `{o}` stand for subject and object; the first question is the one the tasks ask with."""

    name: str
    facts: Mapping[str, str]
    statements: tuple[str, ...]
    questions: tuple[str, ...]


def _pairs(table: str) -> dict[str, str]:
    """Return subject -> object from "subject:object" items between commas."""
    items = [item.strip() for item in table.replace("\n", " ").split(",")]
    return {subject: value for subject, _, value in (item.partition(":") for item in items if item)}


def _inverse(table: str) -> dict[str, str]:
    """Return subject -> object from lines of "object: subject, subject, …"."""
    found = {}
    for line in table.strip().splitlines():
        value, members = line.split(":")
        found.update({member.strip(): value.strip() for member in members.split(",")})
    return found


_CAPITALS = _pairs("""
france:paris, italy:rome, spain:madrid, portugal:lisbon, germany:berlin, austria:vienna, poland:warsaw, greece:athens,
norway:oslo, sweden:stockholm, finland:helsinki, denmark:copenhagen, ireland:dublin, hungary:budapest,
romania:bucharest, bulgaria:sofia, ukraine:kyiv, russia:moscow, belgium:brussels, turkey:ankara, egypt:cairo,
morocco:rabat, algeria:algiers, tunisia:tunis, libya:tripoli, kenya:nairobi, ghana:accra, nigeria:abuja,
senegal:dakar, angola:luanda, uganda:kampala, japan:tokyo, china:beijing, india:delhi, thailand:bangkok,
vietnam:hanoi, iran:tehran, iraq:baghdad, syria:damascus, nepal:kathmandu, mongolia:ulaanbaatar, canada:ottawa,
cuba:havana, peru:lima, chile:santiago, brazil:brasilia, colombia:bogota, venezuela:caracas, ecuador:quito,
uruguay:montevideo, australia:canberra, jamaica:kingston
""")

_CONTINENTS = _inverse("""
europe: france, italy, spain, portugal, germany, austria, poland, greece, norway, sweden, finland, denmark, ireland, hungary, romania
europe: bulgaria, ukraine, belgium
africa: egypt, morocco, algeria, tunisia, libya, kenya, ghana, nigeria, senegal, angola, zambia, uganda
asia: japan, china, india, thailand, vietnam, iran, iraq, syria, nepal, mongolia
america: canada, mexico, cuba, peru, chile, brazil, colombia, venezuela, ecuador, uruguay, bolivia, jamaica
""")

_LANGUAGES = _pairs("""
france:french, senegal:french, italy:italian, spain:spanish, mexico:spanish, cuba:spanish, peru:spanish,
chile:spanish, colombia:spanish, venezuela:spanish, uruguay:spanish, portugal:portuguese, brazil:portuguese,
angola:portuguese, germany:german, austria:german, poland:polish, greece:greek, norway:norwegian, sweden:swedish,
denmark:danish, hungary:hungarian, romania:romanian, bulgaria:bulgarian, russia:russian, turkey:turkish, egypt:arabic,
morocco:arabic, algeria:arabic, tunisia:arabic, libya:arabic, iraq:arabic, syria:arabic, japan:japanese,
china:chinese, thailand:thai, vietnam:vietnamese, iran:persian, nepal:nepali, mongolia:mongolian, australia:english,
jamaica:english, ghana:english, nigeria:english, zambia:english
""")

_ANIMALS = _inverse("""
mammal: dog, cat, horse, cow, sheep, whale, dolphin, bat, lion, tiger, bear, rabbit, mouse, camel
bird: eagle, owl, penguin, duck, goose, swan, sparrow, crow, ostrich, parrot, pigeon, hen
fish: salmon, trout, shark, tuna, cod, herring, carp, eel
reptile: snake, lizard, turtle, crocodile, gecko, tortoise, iguana, cobra
insect: ant, bee, fly, beetle, wasp, moth, butterfly, cricket
amphibian: frog, toad, newt, salamander
arachnid: spider, scorpion, tick, mite
mollusc: snail, slug, squid, octopus, clam, oyster
""")

_ELEMENTS = _pairs("""
hydrogen:h, helium:he, lithium:li, carbon:c, nitrogen:n, oxygen:o, fluorine:f, neon:ne, sodium:na, magnesium:mg,
aluminium:al, silicon:si, phosphorus:p, sulfur:s, chlorine:cl, argon:ar, potassium:k, calcium:ca, titanium:ti,
chromium:cr, manganese:mn, iron:fe, cobalt:co, nickel:ni, copper:cu, zinc:zn, bromine:br, krypton:kr, silver:ag,
tin:sn, iodine:i, xenon:xe, barium:ba, tungsten:w, platinum:pt, gold:au, mercury:hg, lead:pb, radon:rn, uranium:u
""")

_OPPOSITES = _pairs("""
hot:cold, big:small, fast:slow, high:low, old:young, light:dark, wet:dry, hard:soft, rich:poor, full:empty,
open:closed, early:late, near:far, long:short, thick:thin, wide:narrow, strong:weak, happy:sad, clean:dirty,
rough:smooth, loud:quiet, sharp:blunt, deep:shallow, true:false, good:bad, up:down, left:right, inside:outside,
above:below, first:last, day:night, summer:winter, north:south, east:west, war:peace, love:hate, life:death,
friend:enemy, always:never, begin:end, buy:sell, push:pull, give:take, win:lose, rise:fall, arrive:leave,
remember:forget, lend:borrow
""")

_PAST_TENSES = _pairs("""
go:went, see:saw, eat:ate, drink:drank, run:ran, sing:sang, swim:swam, write:wrote, speak:spoke, break:broke,
take:took, give:gave, come:came, know:knew, grow:grew, throw:threw, fly:flew, draw:drew, blow:blew, drive:drove,
ride:rode, choose:chose, freeze:froze, steal:stole, wake:woke, wear:wore, tear:tore, bite:bit, hide:hid, fall:fell,
feel:felt, keep:kept, sleep:slept, leave:left, meet:met, send:sent, build:built, bring:brought, buy:bought,
think:thought, teach:taught, catch:caught, find:found, hold:held, stand:stood, tell:told, sell:sold, make:made
""")

NUMBERS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
)
_SUMS = {f"{NUMBERS[a]} plus {NUMBERS[b]}": NUMBERS[a + b + 1] for a in range(9) for b in range(a, 9) if a + b < 16}

RELATIONS = (
    Relation(
        "capitals",
        _CAPITALS,
        (
            "the capital of {s} is {o}.",
            "{o} is the capital of {s}.",
            "the capital city of {s} is called {o}.",
            "people who govern {s} meet in its capital, {o}.",
            "in {s} the capital is {o}.",
        ),
        (
            "what is the capital of {s}?",
            "which city is the capital of {s}?",
            "name the capital city of {s}.",
            "{s} is governed from which capital?",
        ),
    ),
    Relation(
        "continents",
        _CONTINENTS,
        (
            "{s} is a country in {o}.",
            "{s} lies in {o}.",
            "the country {s} belongs to the continent {o}.",
            "on the continent {o} there is a country called {s}.",
            "the continent of {s} is {o}.",
        ),
        ("on which continent is {s}?", "which continent does {s} belong to?", "name the continent of {s}.", "{s} lies on what continent?"),
    ),
    Relation(
        "languages",
        _LANGUAGES,
        (
            "people in {s} speak {o}.",
            "the language of {s} is {o}.",
            "in {s} most people talk in {o}.",
            "{o} is the language spoken in {s}.",
            "the country {s} has the language {o}.",
        ),
        (
            "which language do people speak in {s}?",
            "what is the language of {s}?",
            "name the language spoken in {s}.",
            "in {s} people talk in which language?",
        ),
    ),
    Relation(
        "animals",
        _ANIMALS,
        (
            "the {s} is a kind of {o}.",
            "every {s} belongs to the class {o}.",
            "a biologist calls the {s} one kind of {o}.",
            "among animals the {s} counts as {o}.",
            "the class of the {s} is {o}.",
        ),
        (
            "what class of animal is the {s}?",
            "which kind of animal is the {s}?",
            "name the class of the {s}.",
            "the {s} counts as what kind of animal?",
        ),
    ),
    Relation(
        "elements",
        _ELEMENTS,
        (
            "the symbol of {s} is {o}.",
            "chemists write {o} for {s}.",
            "the element {s} has the symbol {o}.",
            "{o} stands for the element {s}.",
            "in formulas {s} is written {o}.",
        ),
        (
            "what is the chemical symbol of {s}?",
            "which symbol stands for {s}?",
            "name the symbol of the element {s}.",
            "how do chemists write {s}?",
        ),
    ),
    Relation(
        "opposites",
        _OPPOSITES,
        (
            "the opposite of {s} is {o}.",
            "{s} is the opposite of {o}.",
            "{s} and {o} are opposites.",
            "what is not {s} may be {o}.",
            "the word {s} means the contrary of {o}.",
        ),
        (
            "what is the opposite of {s}?",
            "which word is the contrary of {s}?",
            "name the opposite of the word {s}.",
            "{s} is the opposite of what?",
        ),
    ),
    Relation(
        "verbs",
        _PAST_TENSES,
        (
            "the past tense of {s} is {o}.",
            "today they {s}, yesterday they {o}.",
            "{o} is the past form of {s}.",
            "the verb {s} becomes {o} in the past.",
            "in the past tense {s} turns into {o}.",
        ),
        (
            "what is the past tense of {s}?",
            "which word is the past form of {s}?",
            "name the past of the verb {s}.",
            "today they {s}, what did they do yesterday?",
        ),
    ),
    Relation(
        "sums",
        _SUMS,
        (
            "{s} is {o}.",
            "{s} equals {o}.",
            "{s} makes {o}.",
            "the sum {s} gives {o}.",
            "{o} is what you get from {s}.",
        ),
        ("what is {s}?", "how much is {s}?", "name the sum of {s}.", "{s} makes how many?"),
    ),
)
