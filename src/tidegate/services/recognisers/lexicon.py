"""What English says about names: the words that make a capitalised phrase a person, an organisation, a place, or no name."""

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


COURTESY: Final = _words("mr mrs ms miss mx dr prof professor messrs madam mister")
"""Titles that anyone may have; they are left out of a name."""

RANKS: Final = _words(
    """admiral archbishop archduke baron baroness bishop brigadier cardinal captain chancellor colonel commander
    commodore congressman congresswoman count countess dame duchess duke earl emperor empress father general governor
    grandmaster judge justice king lady lieutenant lord madame major marquis marshal mayor minister monsieur
    pope premier president prince princess prophet queen rabbi rear representative reverend saint secretary senator
    sergeant sheikh sheriff sir sister sultan tsar tsarina vice viscount gen col capt lt sgt maj rev hon sen rep gov"""
)
NOBILITY: Final = _words(
    "archduke baron baroness count countess dame duchess duke earl emperor empress king lady lord madame marquis monsieur "
    "pope prince princess queen saint sir sultan tsar tsarina viscount"
)
"""Ranks that are part of the name they stand before; the others are left out of it."""

GENERATIONS: Final = _words("jr sr ii iii iv esq phd md cpa")
PARTICLES: Final = _words("de da do dos das del della di du la le les van von der den ten ter el al bin ibn y zu af av")

CORPORATE: Final = _words(
    "ag as bv co company corp corporation cv gmbh inc incorporated kg kgaa limited llc llp lp ltd nv oy oyj pc plc pllc "
    "pte pty sa sarl sas se spa srl na afc cf fc fk sc sk"
)
"""Last words of an organisation's legal name; taken off to compare names."""
ORGANISATIONS: Final = _words(
    """academy administration agency airlines airways alliance archive archives army assembly associates association athletic authority
    bancorp bancorporation bank board books broadcasting brothers bureau business cabinet casino center centre chamber church
    clinic club coalition college commission committee conference confederation congress consortium consulting council
    court department directorate division enterprises entertainment exchange faculty federation financial
    firm force foundation fund gazette government group guild guardian herald hospital hotel industries inn institute
    institution insurance international investments journal judiciary laboratories laboratory labs league legislature
    library magazine media ministry mission mirror motors museum navy network news newspaper observer office
    orchestra organisation organization parliament partners partnership party pharmaceuticals police post press
    productions publications publishers publishing reserve resort resorts restaurant rovers school securities senate service services sisters
    society software solutions sport sports studio studios supermarkets syndicate systems taskforce team technologies
    technology telegraph times tribunal tribune trust union united universities university wanderers weekly works"""
)
"""Last words of an organisation's name, and first ones before `of` or `for`."""
GENERIC_HEADS: Final = _words(
    "administration board business center centre court division exchange force fund government group mission office operations party service services systems team technology works conference network senate"
)
"""Those of ORGANISATIONS that are as often no name: they count only behind a word that is nothing else."""

PLACES: Final = _words(
    """airport archipelago avenue basin bay beach boulevard bridge canal canyon cape castle cathedral cemetery county
    creek desert district drive falls forest fort glacier glen ground gulf hall harbor harbour heights highway hill hills island
    islands isle isles lake lane mount mountain mountains ocean palace park pass peak peninsula plateau port prefecture
    province range reservoir ridge river road sea springs square stadium station strait street suburb summit township
    tower valley village volcano woods"""
)
"""Last words of a place's name."""
PLACE_OPENERS: Final = _words(
    "lake mount mt river cape fort ft gulf isle isles bay strait port republic kingdom sea city state straits province county"
)
"""First words of a place's name: `Lake Geneva`, `Isle of Man`."""

OTHER: Final = _words(
    """act acts addendum analysis agreement agreements amendment amendments announcement annex annual appendix article articles
    asset assets award awards benefit bill bonds borrowings bylaws case cases cause chapter charter circuit clause code complaint
    compact compacts compliance constitution contract contracts convention covenant covenants coverage cup date day days deadline decree default directive
    disclosure draft edition election equation expenditure expenditures exhibit exhibits fact facts factor factors fame figure file files figures filing form forms
    framework game games guarantee guidance guide index information instrument interest interests issue item items judgment law
    laws lawsuit lease leverage liability license loan loans manual market matter matters memorandum method model motion
    note notes notice number obligation obligations open option options order orders page part period plan plans
    policy policies prize procedure procedures proceeding proceedings product products program programme project property
    proposition provision ratio rate rates record regulation regulations report reports requirement requirements
    resolution revenue review revolver right rights rule rules schedule section sections settlement share shares standard
    standards statement statements statute statutes stock stocks story study supplement survey table tables tax taxes term terms
    theorem title transaction transactions treaty trial trophy update version volume war warrant warrants will championship
    championships tournament season final finals bowl medal olympics symphony feast diary"""
)
"""Last words of what has a name, but is no person, organisation or place."""

FUNCTION: Final = _words(
    """a an the this that these those i me my mine we us our ours you your yours he him his she her hers it its they them
    their theirs who whom whose which what where when why how and or but nor so yet if then else than as at by for from in
    into of off on onto out over to under up with without within through throughout during before after since until till
    about above across against along among around behind below beneath beside besides between beyond despite down
    except inside like near outside past per plus toward towards upon via while because although though unless whereas
    whether however therefore moreover furthermore nevertheless meanwhile instead otherwise also again always never
    often sometimes usually once twice here there now today tomorrow yesterday tonight soon later earlier still just
    only even ever both either neither each every any all some many much more most few fewer less least several
    such same other another no not none nothing nobody yes please thank thanks is are was were be been being am do does did
    done have has had having can could may might must shall should will would let see say says said going get got make
    made given based according due including following regarding concerning pursuant subject total next previous former latter
    sincerely dear hello hi regards re fw fwd cc bcc attn aka born died replied asked told wrote"""
)
"""Words that begin sentences; taken off both ends of a name."""
CALENDAR: Final = _words(
    """january february march april may june july august september october november december jan feb mar apr jun jul aug
    sept sep oct nov dec monday tuesday wednesday thursday friday saturday sunday mon tue wed thu fri sat sun
    christmas easter spring summer autumn winter"""
)
LABELS: Final = _words(
    """abstract acknowledgements acknowledgments appendix article attachment annex bibliography caption chapter column
    contents copyright details email exhibit fax fig figs figure figures footnote form heading index introduction item
    items keywords nos note notes overview page pages paragraph paragraphs part pdf pp ppt preface phone references section
    sections signature signatures step table tables tel telephone url vol www http https html archived retrieved
    accessed isbn issn doi ibid ed eds et al rev cit op apps gls"""
)
"""What labels parts of a document; taken off both ends of a name, as the calendar's words are."""
ROLES: Final = _words(
    """agent auditor auditors author authors borrower brother buyer ceo cfo chair chairman chairperson chairwoman chief client coach consultant
    contractor coo counsel cto customer customers daughter defendant defendants defender delegate director directors doctor
    editor editors employee employees employer executive founder goalkeeper head holder issuer lender lenders manager
    managers member members midfielder mother officer officers owner participant partner partners party parties plaintiff
    plaintiffs player players registrant sales seller shareholder shareholders son stockholder stockholders striker svp
    treasurer trustee uncle aunt user users vendor vendors vp winner writer"""
)
"""What people are; no part of their names."""
NEVER_ALONE: Final = (
    _words(
        """one two three four five six seven eight nine ten eleven twelve hundred thousand million billion first second third
    fourth fifth sixth last new old north south east west northern southern eastern western central upper lower great
    discussion conclusion conclusions summary results method methods related source sources title volume website line
    lines list version board court government state states federal city county street goodwill heavens heaven god gods bible
    antichrist internet covid ok committee council commission ministry congress parliament senate house university bank
    department agency association society church army navy police press group team club union league premiership
    division cup season content history records news newspaper newspapers media sport style forward career
    north-east north-west south-east south-west ebitda gaap libor asc asu roi api url html pdf faq hr tv cpu gpu usb"""
    )
    | CORPORATE
    | ROLES
    | RANKS
    | OTHER
)
"""Words that are no name by themselves, however they are written."""

PEOPLES: Final = _words(
    """african africans american americans arab arabs argentine asian asians australian australians austrian austrians
    basque belgian belgians brazilian brazilians british briton britons bulgarian canadian canadians catalan catholic
    catholics celtic chilean chinese christian christians colombian croatian cuban czech danish democrat democrats
    democratic dutch egyptian english englishman estonian european europeans finnish french frenchman german germans greek
    greeks hindu hispanic hungarian icelandic indian indians indonesian iranian iraqi irish irishman islamic israeli
    italian italians jamaican japanese jew jewish jews kenyan korean koreans latin latino latvian lithuanian
    malaysian mexican mexicans moroccan muslim muslims native nigerian norwegian pakistani persian peruvian
    philippine polish portuguese protestant republican republicans romanian russian russians scandinavian scot
    scots scottish serbian slovak soviet spaniard spanish swede swedish swiss syrian thai tory turkish ukrainian
    vietnamese viking welsh welshman welshmen"""
)
"""Peoples, languages, faiths: capitalised, but none of our types."""

CLUBS: Final = _words("albion alexandra argyle athletic hotspur orient rangers rovers united villa wanderers wednesday")
"""Last words of a club's name that begins with its town's."""
CLUB_TOWNS: Final = _words("city town")
"""Those that the names of some towns have, too."""
CLUB_INITIALS: Final = _words("ac afc as fc fk hnk nk sc sk sv tsv vfb vfl")
