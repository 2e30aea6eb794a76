"""What English says of names: the words that make a phrase a person, an organisation, a place, or no name."""

from __future__ import annotations

from typing import Final


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


COURTESY: Final = word_set("dr madam messrs miss mister mr mrs ms mx prof professor")
"""Titles that anyone may have; they are left out of a name."""

RANKS: Final = word_set(
    """
    admiral archbishop archduke baron baroness bishop brigadier capt captain cardinal chancellor col colonel
    commander commodore congressman congresswoman count countess dame duchess duke earl emperor empress father gen
    general gov governor grandmaster hon judge justice king lady lieutenant lord lt madame maj major marquis marshal
    mayor minister monsieur pope premier president prince princess prophet queen rabbi rear rep representative rev
    reverend saint secretary sen senator sergeant sgt sheikh sheriff sir sister sultan tsar tsarina vice viscount
    """
)
NOBILITY: Final = word_set(
    """
    archduke baron baroness count countess dame duchess duke earl emperor empress king lady lord madame marquis
    monsieur pope prince princess queen saint sir sultan tsar tsarina viscount
    """
)
"""Ranks that are part of the name they stand before; the others are left out of it."""

GENERATIONS: Final = word_set("cpa esq ii iii iv jr md phd sr")
PARTICLES: Final = word_set(
    """
    af al av bin da das de del della den der di do dos du el ibn la le les ten ter van von y zu
    """
)

CORPORATE: Final = word_set(
    """
    afc ag as bv cf co company corp corporation cv fc fk gmbh inc incorporated kg kgaa limited llc llp lp ltd na nv
    oy oyj pc plc pllc pte pty sa sarl sas sc se sk spa srl
    """
)
"""Last words of an organisation's legal name; taken off to compare names."""
ORGANISATIONS: Final = word_set(
    """
    academy administration aerospace agency airlines airways alliance analytics apparel archive archives army
    assembly associates association athletic authority automotive bakery bancorp bancorporation bank biosciences
    biotech board books brewery brewing broadcasting brothers bureau business cabinet cafe capital casino center
    centre chamber chemicals church clinic club coalition college colleges commission committee confederation
    conference congress consortium construction consulting council court department directorate division
    dynamics electric electronics energy engineering enterprises entertainment equity exchange faculty farms
    federation financial firm foods force foundation fund gazette government group guardian guild healthcare
    herald holdings hospital hospitals hotel industries inn institute institutes institution insurance
    international investments journal judiciary laboratories laboratory labs league legislature library
    logistics magazine media medical minerals mining ministry mirror mission motors museum navy network networks
    news newspaper observer office oil orchestra organisation organization parliament partners partnership party
    petroleum pharma pharmaceuticals pictures police post press productions properties publications publishers
    publishing radio realty reserve resort resorts resources restaurant robotics rovers school semiconductor
    semiconductors senate service services sisters society software solutions sport sports steel stores studio
    studios supermarkets syndicate systems taskforce team technologies technology telecom telecommunications
    telegraph television textiles therapeutics times tribunal tribune trust union united universities university
    ventures wanderers weekly wireless works
    """
)
"""Last words of an organisation's name, and first ones before `of` or `for`."""
GENERIC_HEADS: Final = word_set(
    """
    administration aerospace airlines analytics apparel automotive bakery biosciences biotech board brewery
    brewing business cafe capital center centre chemicals conference construction court division dynamics
    electric electronics energy engineering equity exchange farms foods force fund government group healthcare
    holdings logistics medical minerals mining mission motors network networks office oil operations party
    petroleum pharma pictures properties radio realty resources robotics semiconductor semiconductors senate
    service services steel stores systems team technology telecom telecommunications television textiles
    therapeutics ventures wireless works
    """
)
"""Those of ORGANISATIONS that are as often no name: they count only behind a word that is nothing else."""

PLACES: Final = word_set(
    """
    airport archipelago avenue basin bay beach boulevard bridge canal canyon cape castle cathedral cemetery
    county creek delta desert district drive falls forest fort glacier glen ground gulf hall harbor harbour
    heights highway hill hills island islands isle isles lake lane mount mountain mountains ocean palace park
    pass peak peninsula plateau port prefecture province range reservoir ridge river road sea springs square
    stadium station strait street suburb summit tower township valley village volcano woods
    """
)
"""Last words of a place's name."""
PLACE_OPENERS: Final = word_set(
    """
    bay cape city county fort ft gulf isle isles kingdom lake mount mt port province republic rio river sea
    serra sierra state strait straits
    """
)
"""First words of a place's name: `Lake Geneva`, `Isle of Man`."""

OTHER: Final = word_set(
    """
    act acts addendum agreement agreements aid amendment amendments analysis annex announcement annual appendix
    article articles asset assets award awards benefit bill bonds borrowings bowl bylaws case cases cause
    championship championships chapter charter circuit clause code codification compact compacts complaint
    compliance consent constitution contract contracts convention covenant covenants coverage cup date day days
    deadline decree default diary directive disclosure draft edition election equation exhibit exhibits expenditure
    expenditures fact factor factors facts fame feast figure figures file files filing final finals form forms
    framework game games guarantee guidance guide index information instrument interest interests issue item items
    judgement judgment law laws lawsuit lease leverage liability license loan loans manual market matter matters
    measurement medal memorandum method model motion note notes notice number obligation obligations olympics open
    operations option options order orders page part period plan plans platform policies policy prize procedure
    procedures proceeding proceedings product products program programme project property proposition provision rate
    rates ratio record regulation regulations report reports requirement requirements resolution revenue review
    revolver right rights rule rules sanction sanctions schedule season section sections settlement share shares
    standard standards statement statements statute statutes stock stocks story study subpart supplement survey
    symphony system table tables tax taxes term terms theorem title topic topics tournament transaction transactions
    treaty trial trophy update version volume war warrant warrants will
    """
)
"""Last words of what has a name, but is no person, organisation or place."""

FUNCTION: Final = word_set(
    """
    a about above according across after again against aka all along also although always am among an and
    another any are around as asked at attn based bcc be because been before behind being below beneath beside
    besides between beyond born both but by can cc concerning could dear despite did died do does done down due
    during each earlier either else even ever every except few fewer following for former from furthermore fw
    fwd get given going got had has have having he hello her here hers hi him his how however i if in including
    inside instead into is it its just later latter least less let like made make many may me meanwhile might
    mine more moreover most much must my near neither never nevertheless next no nobody none nor not nothing now
    of off often on once only onto or other otherwise our ours out outside over past per please plus previous
    pursuant regarding regards replied said same say says see several shall she should since sincerely so some
    sometimes soon still subject such than thank thanks that the their theirs them then there therefore these
    they this those though through throughout till to today told tomorrow tonight total toward towards twice
    under unless until up upon us usually via was we were what when where whereas whether which while who whom
    whose why will with within without would wrote yes yesterday yet you your yours
    """
)
"""Words that begin sentences; taken off both ends of a name."""
CALENDAR: Final = word_set(
    """
    apr april aug august autumn christmas dec december easter feb february fri friday jan january jul july jun june
    mar march may mon monday nov november oct october sat saturday sep sept september spring summer sun sunday thu
    thursday tue tuesday wed wednesday winter
    """
)
LABELS: Final = word_set(
    """
    abstract accessed acknowledgements acknowledgments al annex appendix apps archived article attachment
    bibliography caption chapter cit column contents copyright details doi ed eds email et exhibit fax fig figs
    figure figures footnote form gls heading html http https ibid index introduction isbn issn item items keywords
    nos note notes op overview page pages paragraph paragraphs part pdf phone pp ppt preface references retrieved
    rev section sections signature signatures step table tables tel telephone url vol www
    """
)
"""What labels parts of a document; taken off both ends of a name, as the calendar's words are."""
ROLES: Final = word_set(
    """
    acting agent auditor auditors aunt author authors borrower brother buyer ceo cfo chair chairman chairperson
    chairwoman chief client coach consultant contractor coo counsel cto customer customers daughter defendant
    defendants defender delegate deputy director directors doctor editor editors employee employees employer
    executive founder goalkeeper head holder issuer lender lenders manager managers member members midfielder
    mother officer officers owner participant parties partner partners party plaintiff plaintiffs player players
    prime registrant sales seller shareholder shareholders son stockholder stockholders striker supplier
    suppliers svp treasurer trustee uncle user users vendor vendors vp winner writer
    """
)
"""What people are; no part of their names."""
JOBS: Final = word_set(
    """
    activist actor actress ambassador analyst architect artist astronaut attorney author barrister biologist
    bishop boxer campaigner captain chairman chairwoman chancellor chef chemist coach colonel comedian composer
    cricketer defender designer detective director doctor driver drummer economist editor engineer farmer
    footballer general goalkeeper golfer governor guitarist historian imam inspector journalist judge king
    lawyer manager mayor midfielder minister musician novelist nurse officer painter photographer physicist
    pilot poet politician president priest prince princess producer professor queen rabbi rapper scientist
    sculptor secretary senator sergeant singer solicitor spokesman spokeswoman striker surgeon teacher treasurer
    writer
    """
)
"""What stands small before a person's name: `nurse Halima Yusuf`."""

NEVER_ALONE: Final = (
    word_set(
        """
    agency antichrist api army asc association asu bank bible billion board career central church city club
    commission committee conclusion conclusions congress content council county court covid cpu cup department
    discussion division east eastern ebitda eight eleven faq federal fifth first five forward four fourth gaap god
    gods goodwill government gpu great group heaven heavens history house hr html hundred internet journal last
    league libor line lines list lower magazine media method methods million ministry navy new news newspaper
    newspapers nine north north-east north-west northern ok old one parliament pdf police premiership press records
    related results roi season second senate seven six sixth society source sources south south-east south-west
    southern sport state states street style summary team ten third thousand three title tv twelve two union
    university upper url usb version volume website west western
    """
    )
    | CORPORATE
    | ROLES
    | RANKS
    | OTHER
)
"""Words that are no name by themselves, however they are written."""

PEOPLES: Final = word_set(
    """
    african africans american americans arab arabs argentine asian asians australian australians austrian austrians
    basque belgian belgians brazilian brazilians british briton britons bulgarian canadian canadians catalan
    catholic catholics celtic chilean chinese christian christians colombian croatian cuban czech danish democrat
    democratic democrats dutch egyptian english englishman estonian european europeans finnish french frenchman
    german germans greek greeks hindu hispanic hungarian icelandic indian indians indonesian iranian iraqi irish
    irishman islamic israeli italian italians jamaican japanese jew jewish jews kenyan korean koreans latin latino
    latvian lithuanian malaysian mexican mexicans moroccan muslim muslims native nigerian norwegian pakistani
    persian peruvian philippine polish portuguese protestant republican republicans romanian russian russians
    scandinavian scot scots scottish serbian slovak soviet spaniard spanish swede swedish swiss syrian thai tory
    turkish ukrainian vietnamese viking welsh welshman welshmen
    """
)
"""Peoples, languages, faiths: capitalised, but none of our types."""

CLUBS: Final = word_set(
    """
    albion alexandra argyle athletic hotspur orient rangers rovers united villa wanderers wednesday
    """
)
"""Last words of a club's name that begins with its town's."""
CLUB_TOWNS: Final = word_set("city town")
"""Those that the names of some towns have, too."""
CLUB_INITIALS: Final = word_set("ac afc as fc fk hnk nk sc sk sv tsv vfb vfl")
OTHER_OPENERS: Final = word_set("cyclone hurricane operation project storm typhoon")
"""First words of what has a name, but is no person, organisation or place."""
SCHOOLS: Final = word_set("college university")
