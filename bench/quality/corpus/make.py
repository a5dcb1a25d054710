#!/usr/bin/env python3
"""Makes the evaluation corpus from the text edition of the Jargon File, version 4.4.7.

    make.py jargon.txt > jargon-file-4.4.7.txt

Joins the lines of each paragraph; drops indentation, tables, drawings, tables of contents and paragraphs with mail
addresses; ends with the first paragraph past 620,000 bytes. The result is frozen; README.md in this folder has its checksum.
"""
import re
import sys

BYTES = 620_000
START = "Chapter 4. Jargon Construction"


def paragraphs(text):
    for block in re.split(r"\n\s*\n", text):
        joined = " ".join(block.split())
        drawn = re.search("[\u2500-\u257f]", joined)
        listed = re.fullmatch(r"[^:.]{0,60}|.{0,60}[^.!?:;,)’”]", joined) and not joined.startswith((":", "Chapter"))
        addressed = re.search(r"\w@\w+\.", joined)
        if joined and not (drawn or listed or addressed):
            yield joined


def main():
    text = open(sys.argv[1], encoding="utf-8").read().replace("\u00a0", " ")
    start = text.find(START)
    if start < 0:
        sys.exit(f"{sys.argv[1]} has no line '{START}': it must be the text edition of version 4.4.7")
    size = 0
    for paragraph in paragraphs(text[start:]):
        sys.stdout.write(paragraph + "\n\n")
        size += len(paragraph.encode()) + 2
        if size > BYTES:
            return


if __name__ == "__main__":
    main()
