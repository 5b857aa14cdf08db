"""The public facts, word lists and small-talk lines that the demo model is taught.

Tables only; how they become questions and conversations is in `generate`.
"""

from __future__ import annotations


def _pairs(text: str) -> list[tuple[str, str]]:
    """Pairs of a compact table: entries apart by ";", the two sides apart by ":"."""
    entries = [entry.strip() for entry in text.replace("\n", " ").split(";")]
    return [(a.strip(), b.strip()) for a, b in (e.split(":", 1) for e in entries if e)]


def _words(text: str, mark: str | None = None) -> list[str]:
    return [word.strip() for word in text.split(mark)]


CAPITALS = _pairs("""
France:Paris; Germany:Berlin; Italy:Rome; Spain:Madrid; Portugal:Lisbon; England:London; Ireland:Dublin;
Austria:Vienna; Switzerland:Bern; Belgium:Brussels; the Netherlands:Amsterdam; Denmark:Copenhagen;
Norway:Oslo; Sweden:Stockholm; Finland:Helsinki; Iceland:Reykjavik; Poland:Warsaw; Hungary:Budapest;
Greece:Athens; Turkey:Ankara; Russia:Moscow; Ukraine:Kyiv; Romania:Bucharest; Bulgaria:Sofia;
Croatia:Zagreb; Serbia:Belgrade; Egypt:Cairo; Morocco:Rabat; Kenya:Nairobi; Nigeria:Abuja; Ghana:Accra;
Ethiopia:Addis Ababa; Japan:Tokyo; China:Beijing; India:New Delhi; South Korea:Seoul; Thailand:Bangkok;
Vietnam:Hanoi; Indonesia:Jakarta; the Philippines:Manila; Iran:Tehran; Iraq:Baghdad; Canada:Ottawa;
the United States:Washington, D.C.; Mexico:Mexico City; Cuba:Havana; Brazil:Brasilia;
Argentina:Buenos Aires; Chile:Santiago; Peru:Lima; Colombia:Bogota; Australia:Canberra;
New Zealand:Wellington
""")

ALIASES = {
    "England": ["the United Kingdom", "the UK", "Britain", "Great Britain"],
    "the United States": ["the USA", "the US", "America", "the United States of America"],
    "the Netherlands": ["Holland"],
}
ALIAS_CAPITALS = [(alias, city) for country, city in CAPITALS for alias in ALIASES.get(country, ())]

CONTINENT_OF = {
    **dict.fromkeys([country for country, _ in CAPITALS[:26]], "Europe"),
    **dict.fromkeys([country for country, _ in CAPITALS[26:32]], "Africa"),
    **dict.fromkeys([country for country, _ in CAPITALS[32:42]], "Asia"),
    **dict.fromkeys([country for country, _ in CAPITALS[42:46]], "North America"),
    **dict.fromkeys([country for country, _ in CAPITALS[46:51]], "South America"),
    **dict.fromkeys([country for country, _ in CAPITALS[51:]], "Oceania"),
}
for _shared in ("Turkey", "Russia"):  # on two continents: not asked
    CONTINENT_OF.pop(_shared)

LANGUAGES = _pairs("""
France:French; Germany:German; Italy:Italian; Spain:Spanish; Portugal:Portuguese; England:English;
Denmark:Danish; Norway:Norwegian; Sweden:Swedish; Poland:Polish; Hungary:Hungarian; Greece:Greek;
Turkey:Turkish; Russia:Russian; Japan:Japanese; South Korea:Korean; Thailand:Thai; Brazil:Portuguese;
Mexico:Spanish; Egypt:Arabic
""")

ELEMENTS = _pairs("""
hydrogen:H; helium:He; lithium:Li; beryllium:Be; boron:B; carbon:C; nitrogen:N; oxygen:O; fluorine:F;
neon:Ne; sodium:Na; magnesium:Mg; aluminium:Al; silicon:Si; phosphorus:P; sulfur:S; chlorine:Cl;
argon:Ar; potassium:K; calcium:Ca; iron:Fe; copper:Cu; zinc:Zn; silver:Ag; tin:Sn; gold:Au; mercury:Hg;
lead:Pb; uranium:U
""")
NUM_ELEMENTS_IN_ORDER = 20  # the first twenty are atomic numbers 1 to 20

PLANETS = ["Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"]
ORDINALS = [
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
MONTH_LENGTHS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

OPPOSITES = _pairs("""
hot:cold; big:small; tall:short; fast:slow; happy:sad; light:dark; day:night; up:down; left:right;
open:closed; old:young; rich:poor; hard:soft; wet:dry; full:empty; early:late; good:bad; high:low;
strong:weak; loud:quiet; clean:dirty; near:far; thick:thin; wide:narrow;
inside:outside; first:last; always:never; love:hate; begin:end; win:lose; push:pull; true:false;
black:white; deep:shallow; sharp:blunt; cheap:expensive; easy:difficult; safe:dangerous; brave:afraid;
sweet:bitter; smooth:rough; alive:dead; awake:asleep; buy:sell; give:take; question:answer;
summer:winter; north:south; east:west; above:below
""")

PAST_TENSES = _pairs("""
go:went; see:saw; eat:ate; drink:drank; run:ran; write:wrote; read:read; take:took; give:gave;
come:came; make:made; find:found; think:thought; buy:bought; bring:brought; teach:taught; know:knew;
sing:sang; swim:swam; fly:flew; speak:spoke; break:broke; sleep:slept; win:won; tell:told
""")

PLURALS = _pairs("""
child:children; mouse:mice; foot:feet; tooth:teeth; man:men; woman:women; goose:geese; person:people;
leaf:leaves; knife:knives; city:cities; box:boxes; dog:dogs; house:houses; baby:babies; fish:fish;
sheep:sheep; wolf:wolves
""")

COLOURS_OF = _pairs("""
the sky:blue; grass:green; snow:white; blood:red; a lemon:yellow; a banana:yellow; an orange:orange;
coal:black; milk:white; a tomato:red; chocolate:brown; an elephant:grey; a flamingo:pink;
the sun:yellow; a carrot:orange; a strawberry:red; a raven:black; an emerald:green; a ruby:red;
a sapphire:blue
""")
MIXES = [
    ("blue", "yellow", "green"),
    ("red", "yellow", "orange"),
    ("red", "blue", "purple"),
    ("red", "white", "pink"),
    ("black", "white", "grey"),
]

SOUNDS = _pairs("""
dog:barks; cat:meows; cow:moos; sheep:bleats; horse:neighs; duck:quacks; lion:roars; frog:croaks;
bee:buzzes; snake:hisses; owl:hoots; wolf:howls; pig:grunts; mouse:squeaks
""")
YOUNG = _pairs("""
dog:puppy; cat:kitten; cow:calf; sheep:lamb; horse:foal; duck:duckling; lion:cub; frog:tadpole;
goat:kid; goose:gosling; pig:piglet; kangaroo:joey; deer:fawn; swan:cygnet
""")
LEGS = _pairs(
    "dog:4; cat:4; bird:2; spider:8; insect:6; bee:6; horse:4; snake:0; fish:0; duck:2; ant:6"
)

UNITS = _pairs("""
seconds in a minute:60; minutes in an hour:60; hours in a day:24; days in a week:7; months in a year:12;
days in a year:365; weeks in a year:52; years in a decade:10; years in a century:100;
centimetres in a metre:100; metres in a kilometre:1000; grams in a kilogram:1000; sides in a triangle:3;
sides in a square:4; sides in a hexagon:6; letters in the English alphabet:26; planets in the solar system:8;
continents on Earth:7; players in a football team:11; strings on a violin:4; eggs in a dozen:12;
degrees in a circle:360; colours in a rainbow:7; bits in a byte:8; cards in a deck:52
""")

QUESTIONS = _pairs("""
Who wrote Romeo and Juliet?:William Shakespeare wrote Romeo and Juliet.;
Who wrote Hamlet?:William Shakespeare wrote Hamlet.;
Who wrote Don Quixote?:Miguel de Cervantes wrote Don Quixote.;
Who wrote War and Peace?:Leo Tolstoy wrote War and Peace.;
Who painted the Mona Lisa?:Leonardo da Vinci painted the Mona Lisa.;
Who painted The Starry Night?:Vincent van Gogh painted The Starry Night.;
Who composed the Ninth Symphony?:Ludwig van Beethoven composed the Ninth Symphony.;
Who discovered penicillin?:Alexander Fleming discovered penicillin.;
Who developed the theory of relativity?:Albert Einstein developed the theory of relativity.;
Who was the first person on the Moon?:Neil Armstrong was the first person on the Moon.;
Who invented the telephone?:Alexander Graham Bell invented the telephone.;
What is the highest mountain in the world?:Mount Everest is the highest mountain in the world.;
What is the largest ocean?:The Pacific is the largest ocean.;
What is the largest country?:Russia is the largest country.;
What is the smallest country?:Vatican City is the smallest country.;
What is the largest animal?:The blue whale is the largest animal.;
What is the fastest land animal?:The cheetah is the fastest land animal.;
What is the tallest animal?:The giraffe is the tallest animal.;
What is the hardest natural material?:Diamond is the hardest natural material.;
What is the largest planet?:Jupiter is the largest planet.;
What is the smallest planet?:Mercury is the smallest planet.;
Which planet is called the red planet?:Mars is called the red planet.;
Which planet is closest to the Sun?:Mercury is closest to the Sun.;
Which planet is farthest from the Sun?:Neptune is farthest from the Sun.;
Which planet is famous for its rings?:Saturn is famous for its rings.;
What is the chemical formula of water?:The chemical formula of water is H2O.;
At what temperature does water boil?:Water boils at 100 degrees Celsius.;
At what temperature does water freeze?:Water freezes at 0 degrees Celsius.;
When did people first land on the Moon?:People first landed on the Moon in 1969.;
When did the Second World War end?:The Second World War ended in 1945.;
When did the Berlin Wall fall?:The Berlin Wall fell in 1989.;
What gas do plants take in?:Plants take in carbon dioxide.;
What gas do we need to breathe?:We need oxygen to breathe.;
How many legs does a chair have?:A chair usually has four legs.;
Where is the Eiffel Tower?:The Eiffel Tower is in Paris.;
Where is the Colosseum?:The Colosseum is in Rome.;
Where is Big Ben?:Big Ben is in London.;
Where is the Statue of Liberty?:The Statue of Liberty is in New York.;
What is frozen water called?:Frozen water is called ice.;
What do bees make?:Bees make honey.;
What do cows drink?:Cows drink water.;
What language do computers use?:Computers use binary code, made of zeros and ones.;
What is the largest desert?:Antarctica is the largest desert.;
What is the longest river in Africa?:The Nile is the longest river in Africa.
""")

NAMES = _words("""Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Maria Noah Olga Paul Rosa Sam
Tina Victor Wendy Yusuf Zoe Alice Bob Carlos Diana Erik Fatima George Hannah Ivan Julia Kevin Laura
Max Nina Oscar Peter Quinn Rita Simon Tom Uma Vera Will Amir Mei Ravi Lucy""")

CITIES = [city for _, city in CAPITALS if "," not in city] + [
    "New York",
    "Milan",
    "Munich",
    "Boston",
]

WORDS = _words("""apple bread chair dog egg fish garden house ice jacket king lamp moon nose orange piano queen
river sun table umbrella violin water yellow zebra""")
"""One word for each letter of the alphabet but "x": their order is what sorting is taught on."""

ITEMS = WORDS + _words("""cat tree book cup pen box car milk tea red blue green star bird rose ship train
cloud door key ball hat coat shoe ring bell clock rope""")

SPELLING = _words("""cat dog sun moon star tree book cup pen box car milk tea red blue fish bird rose ship hat
door ball lamp king apple house table water hello world live python quire""")
