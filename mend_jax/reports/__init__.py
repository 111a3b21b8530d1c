"""What a run leaves to read.

    results        results.json: the numbers of one evaluation, its protocol and its options
    tables         report.md: results beside each other, one table a protocol
    paper          the paper's numbers, beside ours in these tables
    figures        training.png, scores.png, the figure of a comparison, curves over edits
    before_after   the model's own words before and after an edit
    progress       the bar while a run goes on

Which numbers there are: `evaluation.metrics.METRICS`.
"""
