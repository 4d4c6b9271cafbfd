"""Nouns for the photo cut-outs whose caption is not simply "A noun.": name in the package -> singular[, plural]."""

from __future__ import annotations

IRREGULAR = {
    "deer": "deer", "bison": "bison", "sheep": "sheep", "trout": "trout", "mouse": "mice", "woodlouse": "woodlice",
    "calf": "calves", "pliers": "pliers", "binoculars": "binoculars",
    "mango": "mangoes", "dingo": "dingoes", "blackbuck": "blackbucks", "mantis": "mantises", "iris": "irises",
}  # fmt: skip

NOUNS = {
    "animals/birds/adelaide-rosella": "rosella",
    "animals/birds/albino_peahen": "white peahen",
    "animals/birds/hen": "brown hen",
    "animals/birds/heron_greatblue": "heron",
    "animals/birds/heron_greatblue_flying": "flying heron",
    "animals/birds/magellanic_penguin": "Magellanic penguin",
    "animals/birds/peacock": "peacock",
    "animals/birds/silver-gull": "silver gull",
    "animals/fish/bluegroper": "blue groper",
    "animals/fish/lionfish": "lionfish",
    "animals/fish/lobster": "spiny lobster",
    "animals/fish/dolphinfish": "dolphinfish",
    "animals/fish/clownfish": "clownfish",
    "animals/fish/butterflyfish": "butterflyfish",
    "animals/insects/hoverfly": "hoverfly",
    "animals/mammals/bears/european-bear": "European bear",
    "animals/mammals/bears/toys/edward_bear": "teddy bear",
    "animals/mammals/bovines/gnu-baby": "lying gnu calf",
    "animals/mammals/bovines/gnu-baby-stand": "gnu calf",
    "animals/mammals/bovines/cow_white": "white cow",
    "animals/mammals/bovines/mountaingoat": "mountain goat",
    "animals/mammals/bovines/sheep_lamb": "lamb",
    "animals/mammals/hippopotamus": "hippopotamus, hippopotamuses",
    "animals/mammals/rabbit_little": "little rabbit",
    "animals/mammals/rhino_black": "black rhino",
    "animals/mammals/rodents/rabbit-2": "big-eared rabbit",
    "animals/mammals/wildboar": "pair of wild boars, pairs of wild boars",
    "food/fruit/Cherry_Stella": "pair of cherries, pairs of cherries",
    "food/fruit/apple_fuji": "Fuji apple",
    "food/fruit/apple_sierra_beauty": "yellow apple",
    "food/fruit/avocado": "avocado",
    "food/fruit/cherimoya": "cherimoya",
    "food/fruit/grapes": "bunch of grapes, bunches of grapes",
    "food/fruit/lemon": "lemon",
    "food/fruit/orange_seville": "bitter orange",
    "food/fruit/pear": "pear",
    "food/pizza": "slice of pizza, slices of pizza",
    "food/spices/ginger": "ginger root",
    "food/vegetables/broccoli": "head of broccoli, heads of broccoli",
    "food/vegetables/corn": "ear of corn, ears of corn",
    "food/vegetables/lettuce": "head of lettuce, heads of lettuce",
    "food/vegetables/redlettuce": "head of red lettuce, heads of red lettuce",
    "food/vegetables/pumpkin_small": "pumpkin",
    "hobbies/binoculars": "pair of binoculars, pairs of binoculars",
    "household/garbagecan": "garbage can",
    "household/dishes/pitcher_small": "pitcher",
    "household/home_compost_bin": "compost bin",
    "household/toilet": "toilet",
    "household/tools/measuring_tape": "measuring tape",
    "household/tools/plyers": "pair of pliers, pairs of pliers",
    "household/wheelie_bin": "wheelie bin",
    "household/tools/wrench_plumbers": "pipe wrench",
    "medical/mercurythermometer": "thermometer",
    "medical/stethoscope": "stethoscope",
    "military/ammunition/old_naval_shell": "naval shell",
    "military/final-roll-call": "soldier memorial",
    "military/fireman240a": "fireman, firemen",
    "military/vehicles/bradley": "tank",
    "military/vehicles/f22_raptor": "fighter jet",
    "military/vehicles/infantry-stryker": "armoured car",
    "military/vehicles/ww2_german_gun": "field gun",
    "plants/eggplant": "eggplant",
    "plants/flowers/adeenia": "desert rose",
    "plants/flowers/anemone_red": "red anemone",
    "plants/flowers/anthoorium": "anthurium",
    "plants/flowers/appooppanthady": "milkweed flower",
    "plants/flowers/bolsom": "balsam flower",
    "plants/flowers/chemparathi": "hibiscus",
    "plants/flowers/flower7": "bunch of flowers, bunches of flowers",
    "plants/flowers/pigface": "purple flower",
    "plants/flowers/plastic/chuvanna_plastic_poo": "red plastic flower",
    "plants/flowers/red-gazania": "red gazania",
    "plants/flowers/whitestar-petunia": "white-star petunia",
    "plants/lavender": "lavender plant",
    "plants/mushrooms/cep-2": "pair of ceps, pairs of ceps",
    "plants/trees/holly_leaves": "holly twig",
    "plants/trees/rambutan": "rambutan",
    "sports/australian_rules_football": "red football",
    "sports/football": "American football",
    "vehicles/auto/beetle": "Beetle car",
    "vehicles/auto/sedan": "sedan",
    "vehicles/construction/dumper": "dumper",
    "vehicles/ship/chineseJunk": "sailing ship",
}


def plural(noun: str) -> str:
    """Regular English plural of the last word, with the exceptions listed above."""
    head, _, last = noun.rpartition(" ")
    if last in IRREGULAR:
        ending = IRREGULAR[last]
    elif last.endswith("fish"):
        ending = last
    elif last.endswith(("s", "x", "ch", "sh")):
        ending = last + "es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        ending = last[:-1] + "ies"
    else:
        ending = last + "s"
    return f"{head} {ending}".strip()


def noun_forms(name: str, caption: str) -> tuple[str, str]:
    """(singular, plural) for a stamp: the table above, else the caption without article and full stop."""
    if name in NOUNS:
        singular, _, given = NOUNS[name].partition(", ")
        return singular, given or plural(singular)
    words = caption.rstrip(".!").split()
    if words[0].lower() in ("a", "an", "the", "some"):
        words = words[1:]
    singular = " ".join(words)
    return singular, plural(singular)
