#!/usr/bin/env python3
"""Writes the task files in tasks/: retrieval, copying, arithmetic, reading. The output is deterministic."""
import json
import pathlib
import random

FOLDER = pathlib.Path(__file__).parent / "tasks"

FILLER = [
    "The harbor was quiet in the morning, and the boats lay still at their ropes.",
    "A gardener pruned the roses along the wall and swept the path afterwards.",
    "In the library someone had left a map of the old railway on the table.",
    "The baker opened early, as he did every day, and the street smelled of bread.",
    "Two children counted the wagons of a long train that crossed the bridge.",
    "Rain fell on the hills for most of the afternoon and stopped before dusk.",
    "The clock in the tower was four minutes slow, which nobody minded.",
    "A letter arrived from the coast with news of the new lighthouse.",
    "The carpenter measured the door twice and cut the board once.",
    "At noon the market closed, and the stalls were taken down one by one.",
    "The river had been low all summer, so the ferry ran only in the evening.",
    "An old dog slept in the shade of the wagon and did not wake.",
]


def filler(rng, words):
    text = []
    while sum(len(s.split()) for s in text) < words:
        text.append(rng.choice(FILLER))
    return text


def retrieval(rng):
    """A number hidden in a text, at five depths of four lengths."""
    for words in (120, 240, 480, 900):
        for tenth in (1, 3, 5, 7, 9):
            for _ in range(3):
                number = str(rng.randrange(10000, 1000000))
                text = filler(rng, words)
                at = len(text) * tenth // 10
                text.insert(at, f"\n\nThe pass key is {number}. Remember it. {number} is the pass key.\n\n")
                yield {"prompt": " ".join(text) + "\n\nWhat is the pass key? The pass key is", "answers": [number]}


def copying(rng):
    """A line to be copied, identified by its first words among other lines."""
    words = "amber bridge candle desert engine forest guitar hammer island jacket kettle ladder mirror needle orange pencil".split()
    for _ in range(50):
        lines = [" ".join(rng.sample(words, 8)) for _ in range(6)]
        line = rng.choice(lines)
        start = " ".join(line.split()[:2])
        if sum(other.startswith(start) for other in lines) > 1:
            continue
        text = "\n".join(lines)
        yield {"prompt": f"{text}\n\n{text}\n\n{start}", "answers": [" ".join(line.split()[2:])]}


def sums(rng, count):
    """Alternating sums and differences of small numbers."""
    for i in range(count):
        a, b = rng.randrange(2, 50), rng.randrange(2, 50)
        if i % 2:
            a, b = max(a, b), min(a, b)
        yield a, "-" if i % 2 else "+", b, a - b if i % 2 else a + b


def arithmetic(rng):
    """A sum with four choices after forty solved examples, most of which have left the residual ring."""
    for a, sign, b, right in sums(rng, 60):
        wrong = rng.sample([x for x in range(max(0, right - 12), right + 13) if x != right], 3)
        choices = [str(x) for x in [right, *wrong]]
        rng.shuffle(choices)
        examples = "".join(f"{x} {op} {y} = {z}\n" for x, op, y, z in sums(rng, 40))
        yield {"prompt": f"{examples}{a} {sign} {b} =", "choices": choices, "gold": choices.index(str(right))}


PASSAGES = [
    ("Bees", "Marta keeps bees behind her house. She has six hives, which she painted blue so that the bees find them easily. "
     "In spring she gives the bees sugar water, because few flowers are open. In July she takes the honey and sells it in the village on Saturdays.",
     [("How many hives does Marta have?", ["six", "two", "twelve"]), ("What color are the hives?", ["blue", "red", "white"]),
      ("What do the bees get in spring?", ["sugar water", "milk", "bread"]), ("When does Marta sell the honey?", ["on Saturdays", "on Mondays", "every night"])]),
    ("The night train", "The night train leaves the capital at ten and reaches the sea at seven in the morning. It has four sleeping cars and a small restaurant. "
     "The conductor, Mr. Olsen, wakes the passengers half an hour before they arrive and brings them tea.",
     [("When does the train leave?", ["at ten", "at noon", "at four"]), ("Where does the train go?", ["to the sea", "to the desert", "to the airport"]),
      ("Who wakes the passengers?", ["the conductor", "the cook", "nobody"]), ("What does he bring them?", ["tea", "soup", "newspapers"])]),
    ("The mill", "When the old mill burned down, the town did not build it again. Instead the stones were used for a school. "
     "Above its door one still sees the wheel that was carved by the miller's daughter. The school has forty pupils and two teachers.",
     [("What burned down?", ["the mill", "the school", "the church"]), ("What were the stones used for?", ["a school", "a bridge", "a road"]),
      ("Who carved the wheel?", ["the miller's daughter", "a teacher", "the king"]), ("How many teachers are there?", ["two", "forty", "ten"])]),
    ("The clock shop", "Ivo repairs clocks. His shop is so narrow that only one customer fits in at a time. He never writes down what he promised, and never forgets it. "
     "The clock he likes best is a ship's clock that runs for eight days. He says he will not sell it.",
     [("What does Ivo repair?", ["clocks", "shoes", "bicycles"]), ("How many customers fit into the shop?", ["one", "ten", "fifty"]),
      ("How long does the ship's clock run?", ["eight days", "one hour", "a year"]), ("Will Ivo sell the ship's clock?", ["no", "yes, tomorrow", "yes, for gold"])]),
    ("Snow on the pass", "Snow closed the pass on Tuesday. A truck with apples stood there for two days before the plough came. The driver ate nothing but apples. "
     "When he came down at last, he gave the rest to the children, and said that he would carry nuts the next time.",
     [("What closed the pass?", ["snow", "a fire", "a flood"]), ("What did the truck carry?", ["apples", "coal", "books"]),
      ("How long did the truck stand there?", ["two days", "two months", "one hour"]), ("Who got the rest of the apples?", ["the children", "the police", "the horses"])]),
    ("The program", "A computer program that is never stopped must give back the memory it takes. If it forgets a little in each hour, it will fail after some weeks, "
     "usually at night. The engineers therefore wrote a test that runs the program for three days and compares the memory at the beginning and at the end.",
     [("What must the program give back?", ["memory", "money", "keys"]), ("When does it usually fail?", ["at night", "at lunch", "in spring"]),
      ("How long does the test run?", ["three days", "one minute", "ten years"]), ("What is compared?", ["the memory", "the colors", "the names"])]),
    ("The raft", "Lena and her brother built a raft of four barrels and an old door. It carried both of them across the lake, but not back, because one barrel had a hole. "
     "They walked home around the lake, which took three hours, and their father laughed.",
     [("What was the raft made of?", ["barrels and a door", "ice", "paper"]), ("Why did it not carry them back?", ["a barrel had a hole", "it was stolen", "it burned"]),
      ("How long did they walk?", ["three hours", "one week", "a minute"]), ("Who laughed?", ["their father", "the raft", "a fisherman"])]),
    ("The museum of salt", "The museum of salt has only three rooms. In the first stand tools of miners, in the second a horse made of salt, and in the third one may taste twelve kinds of salt. "
     "Most visitors stay longest in the third room, and all of them leave thirsty.",
     [("How many rooms are there?", ["three", "thirty", "seven"]), ("What stands in the second room?", ["a horse made of salt", "a ship", "a piano"]),
      ("Where do most visitors stay longest?", ["in the third room", "in the garden", "in the first room"]), ("How do the visitors leave?", ["thirsty", "asleep", "wet"])]),
    ("The green dye", "To make the green dye, the weavers boil the leaves for an hour and let the water cool. Then the wool is laid in for a night. "
     "If it hangs in the sun afterwards it turns yellow, and so they dry it in the cellar.",
     [("How long are the leaves boiled?", ["an hour", "a week", "a second"]), ("What color is the dye?", ["green", "black", "pink"]),
      ("What happens in the sun?", ["the wool turns yellow", "the wool grows", "nothing at all"]), ("Where is the wool dried?", ["in the cellar", "on the roof", "in the oven"])]),
    ("The captain's list", "Captain Brandt kept a list of all the islands he had seen, with the weather of the day. There were 212 of them when he stopped sailing. "
     "On the last page he wrote that the smallest island had been the best, since it had a spring and no flies.",
     [("What did the captain keep a list of?", ["islands", "songs", "debts"]), ("How many islands were there?", ["212", "3", "9000"]),
      ("Which island was the best?", ["the smallest", "the largest", "the first"]), ("What did the best island not have?", ["flies", "water", "a name"])]),
]


def reading(rng):
    """Questions about one of six short texts, with three choices."""
    for title, text, questions in PASSAGES:
        for question, choices in questions:
            right = choices[0]
            shuffled = choices[:]
            rng.shuffle(shuffled)
            texts = [(title, text), *((t, x) for t, x, _ in rng.sample([p for p in PASSAGES if p[0] != title], 5))]
            rng.shuffle(texts)
            pages = "".join(f"# {t}\n\n{x}\n\n" for t, x in texts)
            yield {"prompt": f"{pages}Question about \"{title}\": {question}\nAnswer:", "choices": shuffled, "gold": shuffled.index(right)}


def main():
    FOLDER.mkdir(exist_ok=True)
    for make in (retrieval, copying, arithmetic, reading):
        rows = list(make(random.Random(7)))
        with open(FOLDER / f"{make.__name__}.jsonl", "w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")
        print(f"{make.__name__}: {len(rows)} rows")


if __name__ == "__main__":
    main()
