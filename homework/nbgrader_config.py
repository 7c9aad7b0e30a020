# nbgrader reads this in the folder of the course: https://nbgrader.readthedocs.io
from lecturelib.checks.execution import Execute
from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbgrader.preprocessors import AssignLatePenalties, CheckCellMetadata, IgnorePattern, LimitOutput, SaveAutoGrades

c = get_config()  # noqa: F821  nbgrader gives it
c.CourseDirectory.course_id = "cnn"
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE / 여기에 코드를 쓰세요\nraise NotImplementedError()"}
c.OverwriteCells.add_missing_cells = True
c.Autograde.autograde_preprocessors = [
    Execute,
    IgnorePattern,
    ClearMetadataPreprocessor,
    LimitOutput,
    SaveAutoGrades,
    AssignLatePenalties,
    CheckCellMetadata,
]
c.Execute.cell_seconds = 30
c.Execute.notebook_seconds = 1800
c.Execute.memory_megabytes = 4096
