"""What is known of English: words that carry no meaning, abbreviations, and how sentences begin."""

from __future__ import annotations

from typing import Final


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


STOP_WORDS: Final = _words("""
    a about above across after again against all almost along already also although always am among an and another any
    are aren't around as at away back be became because become becomes been before being below between both but by came
    can can't cannot come could couldn't did didn't do does doesn't doing don't done down during each either else even
    ever every few for from further get gets getting given go goes going gone got had hadn't has hasn't have haven't
    having he he'd he's her here hers herself him himself his how however i i'd i'll i'm i've if in into is isn't it
    it's its itself just least less let's like made make makes making many may me might mine more most much must my
    myself neither never no nor not now of off often on once one only onto or other others our ours ourselves out over
    own per perhaps quite rather really said same say says shall she she's should shouldn't since so some such than
    that that's the their theirs them themselves then there there's therefore these they they're they've this those
    though through throughout thus to together too toward towards under until unless up upon us use used using very
    via was wasn't we we're we've well went were weren't what when where whether which while who whom whose why will
    with within without won't would wouldn't yes yet you you're you've your yours yourself
""")

DATE_WORDS: Final = _words("""
    january february march april may june july august september october november december year years month months day
    days ended
""")

TITLES: Final = _words("""
    mr mrs ms mx messrs dr prof st ste mt gen col maj capt cmdr lt sgt cpl rev hon gov sen rep mme mlle
""")
"""Abbreviations that stand before a name, so that their full stop ends no sentence."""

ABBREVIATIONS: Final = _words("""
    inc ltd co cos corp llc plc bros jr sr etc al esp vs v cf eg ie viz approx ca est dept govt univ assn assoc intl
    natl ave blvd rd tel ext max min avg jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur
    thurs fri sat sun ed eds trans ph bzw usw
""")
"""Abbreviations whose full stop ends a sentence only if what follows begins one."""

BEFORE_NUMBER: Final = _words("""
    no nos nr fig figs eq eqs sec secs art arts ch chap vol vols p pp par app tab ref refs
""")
"""Abbreviations before a number; some are words as well."""

NUMBERED: Final = _words("""
    item items note notes section part chapter figure table article step schedule exhibit appendix rule
""")
"""Words before a number that a full stop may follow: Item 1. Business."""

STARTERS: Final = _words("""
    a after all although an and another as at because before both but by despite during each for from he her here his
    how however if in it its many meanwhile moreover most no not on one or our she since so some such that the their
    then there these they this those though to under until we what when where which while who why with yet you
    das der die ein eine el es il la le les los un une
""")
"""Words that, with a capital, begin a sentence rather than go on with a name; a few are of other languages."""

DANGLING: Final = _words("""
    he she it they this these those that such there here his her hers its their theirs him them however but and or so
    yet also then thus therefore hence moreover furthermore nevertheless nonetheless otherwise instead meanwhile
    additionally similarly likewise consequently accordingly finally secondly thirdly both neither either another other
    others
""")
"""Words that, at its beginning, make a sentence hang on the one before it."""

PERSONAL: Final = _words("i i'm i've i'd i'll me my mine you your yours you're you'll")

NUMERALS: Final = {
    word: value
    for value, word in enumerate(
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen twenty""".split()
    )
} | {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
