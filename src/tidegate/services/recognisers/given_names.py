"""Given names that are common somewhere and hardly ever anything else."""

from __future__ import annotations

from typing import Final

from tidegate.services.recognisers.lexicon import word_set

GIVEN_NAMES: Final = word_set(
    """
    aaron abdul abdullah abigail abraham adam adrian agnes ahmad ahmed aidan ailsa aisha akira alan albert
    alberto alejandro aleksandr alex alexander alexandra alexei alexis alfonso alfred ali alice alicia alina
    alison allan allen allison amanda amelia amina amir amit amy ana ananya anastasia anders andre andrea
    andreas andrei andres andrew andrey andy angela angelina angelo angus anil anita anjali ann anna anne
    annette annie anthony antoine anton antonio anya archibald arjun arnold arthur arturo ashley asif astrid
    audrey axel ayesha barbara barry bartholomew basil beatrice beatriz ben benedict benjamin bernard bernardo
    bernd bernhard bert beth bethany betty beverly bill billy bjorn bob bobby boris brad bradley brandon brenda
    brendan brian bridget bruce bruno bryan bryn bukola caitlin calvin cameron camille carl carla carlo carlos
    carmen carol carole caroline carolyn catherine cathy cecilia cedric celia cesar charlene charles charlie
    chen cheryl chidi chinua chioma chloe chris christina christine christoph christopher claire clara clarence
    claude claudia claus clement clifford clive colin colleen connor conor conrad constance craig curtis cynthia
    cyril dafydd damien dan daniel daniela danielle danny daphne darius darran darrell darren dave david davide
    dean deborah declan deepak delia denis denise dennis derek derrick desmond diana diane diego dieter dimitri
    dmitri dmitry dominic dominique don donald donna doris dorothy doug douglas duncan dylan eamon ed eddie
    edgar edith edmund eduardo edward edwin eileen eirik elaine eleanor elena elias elijah elisabeth elise
    elizabeth ella ellen elliot elsa emeka emil emile emilia emilio emily emma emmanuel enrico enrique eric
    erica erich erik erika ernest ernesto erwin esther ethan etienne eugene eva evan evelyn ewan farah fatima
    federico felicity felipe felix ferdinand fernando fiona frances francesca francesco francis francisco
    francois frank franz fred freddie frederic frederick friedrich fritz fyodor gabriel gabriela gareth garry
    gary gavin gemma genevieve geoff geoffrey george georges gerald gerard gerhard gerry giles gillian gina
    giorgio giovanni giulia glenda glenn gordon grace graham greg gregory greta guillermo gunther gustav gwen
    gwyneth halima hamza hannah hans harold harriet harry harvey hassan hazel heather hector heidi heinrich
    heinz helen helena helene helga henri henrietta henrik henry herbert herman hermann hilary hiroko hiroshi
    holly howard hubert hugh hugo humphrey ian ibrahim ifan igor imran ingeborg ingrid ioan iolo irene irina
    iris isaac isabel isabella isabelle isaiah ivan ivor iwan jack jackie jackson jacob jacqueline jacques jaime
    jake jamal james jamie jan jana jane janet janice jared jasmine jason javier jay jean jeff jeffrey jennifer
    jenny jens jeremy jerome jerry jessica jesus jill jim jimmy jiro joachim joan joanna joanne joao jochen joe
    joel johan johann johannes john johnny jon jonas jonathan jorge jose josef joseph josephine josh joshua
    joyce juan juanita judith judy juergen jules julia julian juliana julie julien juliet julio julius jun
    jurgen justin karen karin karl karla kate katharina katharine katherine kathleen kathryn kathy katie keith
    kelly ken kenji kenneth kenny kevin khalid kim kimberly kirsten klaus kofi konrad konstantin krishna kristen
    kristin kurt kwame kyle laetitia lakshmi larry lars laura lauren laurence laurent lawrence layla leah lee
    leigh leila lena leo leon leonard leonardo leonid leroy leslie lewis li-wei liam lillian linda lionel lisa
    liz lloyd lois lorenzo lorraine louis louisa louise luc luca lucas lucia lucie lucy luigi luis luisa lukas
    luke lydia lynn mabel madeleine madison magnus malcolm manfred manuel marc marcel marcia marco marcos marcus
    margaret margarita maria marian marianne marie marilyn mario marion marjorie mark markus marlene marta
    martha martin martina marvin mary marya masami mateo mathias matilda matt matteo matthew matthias maureen
    maurice mauricio max maximilian maxwell megan mehmet mei melanie melissa meredith michael michaela michel
    michele michelle miguel mikael mike mikhail mila mildred milton mina miriam mitchell moana mohamed mohammad
    mohammed moira molly monica monique morgan moritz morris moses muhammad muriel mustafa mwangi myriam nadia
    nancy naomi natalia natalie natasha nathan nathaniel neil nelson ngozi nia nicholas nick nicola nicolas
    nicole nigel nikita niklas nikolai nikos nils nina noah noel noor nora norbert norma norman oleg olga oliver
    olivia olivier olu omar oscar oskar osman otto owen pablo paolo pascal pat patricia patrick paul paula
    pauline paulo pavel pedro peggy penelope percy pete peter petra phil philip philippa philippe phillip phoebe
    pierre pieter piotr priya priyanka rachel rafael rahul rainer raj rajesh ralph ramon randall randy raoul
    raphael raul ravi ray raymond rebecca reginald reinhard renata rene rhys ricardo richard rick ricky ritu rob
    robert roberta roberto robin rodney rodrigo roger roland rolf roman ron ronald ronnie rory rosa rosalind
    rosemary ross roy ruben rudolf rudolph rupert russell ruth ryan sabine sabrina sally salvador sam samantha
    samir samuel sana sandra sanjay sara sarah sarita scott sean sebastian serena serge sergei sergey sergio
    seth shane shannon sharon shaun sheila shelley shirley shreya sian siegfried sigmund silvia simon simone
    sita sofia sonia sonja sophia sophie stan stanley stefan stefanie stella stephan stephane stephanie stephen
    steve steven stewart stuart sue sunil sunita suresh susan susanna suzanne sven svetlana sybil sylvia takashi
    tamara tanya tara tariq tatiana ted terence teresa terry thabo thelma theo theodor theodore theresa thomas
    tim timothy tobias todd tom tomas tommy tony tracy trevor tristan tunde ulrich umberto ursula uwe vasili
    vasily vera vernon veronica vicente vicky victor vijay vikram viktor vincent viola vivian vladimir volker
    walter wanda wanjiru warren wayne wendy werner wes wilhelm will willem william wilson winifred winston
    wolfgang xavier yang yara yasmin yolanda yuki yuri yusra yusuf yves yvonne zachary zahra zainab zhang zoe
    """
)

SHORT_FORMS: Final = {
    "abby": "abigail",
    "andy": "andrew",
    "ben": "benjamin",
    "bert": "albert",
    "beth": "elizabeth",
    "bill": "william",
    "billy": "william",
    "bob": "robert",
    "bobby": "robert",
    "cathy": "catherine",
    "chris": "christopher",
    "dan": "daniel",
    "danny": "daniel",
    "dave": "david",
    "don": "donald",
    "doug": "douglas",
    "ed": "edward",
    "eddie": "edward",
    "frank": "francis",
    "fred": "frederick",
    "greg": "gregory",
    "jack": "john",
    "jeff": "jeffrey",
    "jim": "james",
    "jimmy": "james",
    "joe": "joseph",
    "johnny": "john",
    "josh": "joshua",
    "kate": "katherine",
    "kathy": "katherine",
    "ken": "kenneth",
    "larry": "lawrence",
    "liz": "elizabeth",
    "matt": "matthew",
    "max": "maximilian",
    "mike": "michael",
    "nick": "nicholas",
    "pat": "patrick",
    "pete": "peter",
    "phil": "philip",
    "rick": "richard",
    "rob": "robert",
    "ron": "ronald",
    "sam": "samuel",
    "steve": "steven",
    "stephen": "steven",
    "sue": "susan",
    "ted": "edward",
    "tim": "timothy",
    "tom": "thomas",
    "tommy": "thomas",
    "tony": "anthony",
    "will": "william",
}
